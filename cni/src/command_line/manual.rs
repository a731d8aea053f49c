//! `man`: the manual. One page says all, the commands' options too, because one page is what gets installed.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

/// The page, in the language of `man`.
pub(super) fn page(mut program: Command) -> io::Result<Vec<u8>> {
    // What the commands inherit, and what they are called with the program's name before it, is known from here on.
    program.build();
    let commands: Vec<Command> =
        program.get_subcommands().filter(|command| command.get_name() != "help").map(without_the_usual).collect();
    let man = Man::new(program);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    let mut sections = Vec::new();
    man.render_name_section(&mut sections)?;
    man.render_synopsis_section(&mut sections)?;
    man.render_description_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    writeln!(sections, ".SH COMMANDS")?;
    for command in commands {
        append(command, &mut sections)?;
    }
    man.render_extra_section(&mut sections)?;
    man.render_version_section(&mut sections)?;
    // Each section comes with what the page begins with.
    append_without(&[b".ie ", b".el "], &sections, &mut page);
    Ok(page)
}

/// A command without the options that every one has.
fn without_the_usual(command: &Command) -> Command {
    command.clone().mut_args(|argument| {
        let is_usual = argument.is_global_set() || argument.get_id() == "help";
        if is_usual { argument.hide(true) } else { argument }
    })
}

/// Appends how a command is called, what it does and what its options mean, below a heading of its own.
fn append(command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    writeln!(page, ".SS {}", name.replace('-', "\\-"))?;
    let man = Man::new(command);
    let mut sections = Vec::new();
    man.render_synopsis_section(&mut sections)?;
    writeln!(sections, ".PP")?;
    man.render_description_section(&mut sections)?;
    man.render_options_section(&mut sections)?;
    append_without(&[b".SH "], &sections, page);
    Ok(())
}

/// Appends the lines that begin in none of these ways.
fn append_without(starts: &[&[u8]], lines: &[u8], page: &mut Vec<u8>) {
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if !starts.iter().any(|start| line.starts_with(start)) {
            page.extend_from_slice(line);
        }
    }
}
