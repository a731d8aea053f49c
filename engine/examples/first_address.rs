//! An address out of a durable pool, from the library. The README shows this program.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "an example, short on purpose")]

use std::error::Error;

use whereabouts_engine::{
    Allocate, Attachment, HostFacts, Ledger, Network, OpenOptions, Owner, Pool, Sharing, View, ViewSpec, Want,
};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("name the ledger's file")?;
    let ledger = Ledger::open(&OpenOptions::new(file), HostFacts::read())?;
    let range = "10.0.0.0/24".parse()?;
    let pool = Pool::new(Network::unnamed(), range);
    let view = View::new(&ViewSpec::new(range))?.into();
    let want = Want { pool, sharing: Sharing::Shared, view, exactly: None };
    let request =
        Allocate { attachment: Attachment::named("web"), owner: Owner::Named("web".into()), wants: vec![want] };
    for answer in ledger.allocate(&[request])? {
        println!("{}", answer?[0].address);
    }
    Ok(())
}
