//! The rows of the Go plugin's own tests that are about arithmetic, by their ids (A: allocate, G: range, H: addresses,
//! F: the rows of the fork), and what differs from them on purpose.

use super::*;
use crate::{SpecError, parse_exclude};

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A range as the Go plugin's tests write it; an empty start or end is not set.
struct Row {
    spec: ViewSpec,
    held: Vec<Address>,
}

fn range(text: &str) -> Row {
    Row { spec: text.parse().unwrap(), held: Vec::new() }
}

impl Row {
    fn start(mut self, text: &str) -> Self {
        self.spec.start = Some(address(text));
        self
    }

    fn end(mut self, text: &str) -> Self {
        self.spec.end = Some(address(text));
        self
    }

    fn exclude(mut self, texts: &[&str]) -> Self {
        self.spec.excludes.extend(texts.iter().map(|text| parse_exclude(text).unwrap()));
        self
    }

    fn gateway(mut self, text: &str) -> Self {
        self.spec.gateways.push(address(text));
        self
    }

    fn held(mut self, texts: &[&str]) -> Self {
        self.held.extend(texts.iter().map(|text| address(text)));
        self
    }

    fn l3(mut self) -> Self {
        self.spec.edges = Edges::Usable;
        self
    }

    fn view(&self) -> View {
        View::new(&self.spec).unwrap()
    }

    #[track_caller]
    fn lowest_is(&self, expected: &str) {
        assert_eq!(self.lowest(), Some(address(expected)));
    }

    #[track_caller]
    fn nothing_is_free(&self) {
        assert_eq!(self.lowest(), None);
    }

    fn lowest(&self) -> Option<Address> {
        self.view().iter().find(|candidate| !self.held.contains(candidate))
    }

    #[track_caller]
    fn spans(&self, first: &str, last: &str) {
        let view = self.view();
        assert_eq!((view.first(), view.last()), (Some(address(first)), Some(address(last))));
        assert!(view.contains(address(first)) && view.contains(address(last)));
    }

    #[track_caller]
    fn is_all(&self, expected: &[&str]) {
        let found: Vec<String> = self.view().iter().map(|found| found.to_string()).collect();
        assert_eq!(found, expected);
    }

    #[track_caller]
    fn is_too_small(&self) {
        let error = View::new(&self.spec).unwrap_err();
        assert!(matches!(error, ViewError::TooSmall { .. }), "{error}");
        assert!(error.to_string().starts_with("net mask is too short, subnet "), "{error}");
    }

    #[track_caller]
    fn ignores(&self, expected: &[&str]) {
        let found: Vec<String> = self.view().ignored().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }
}

// === 5.1: the lowest address ===

#[test]
fn a1_host_bits_and_a_start_at_the_network_address() {
    range("192.168.1.1/24").start("192.168.1.0").lowest_is("192.168.1.1");
}

#[test]
fn a2_to_a4_ipv6_begins_after_the_network_address() {
    range("caa5::0/112").start("caa5::").lowest_is("caa5::1");
    range("::1/126").start("::").lowest_is("::1");
    range("fd::1/116").start("fd::").lowest_is("fd::1");
}

#[test]
fn a6_a_network_is_excluded() {
    range("192.168.0.0/29").exclude(&["192.168.0.0/30"]).lowest_is("192.168.0.4");
}

#[test]
fn a7_a_bare_address_is_excluded() {
    range("192.168.0.0/29").exclude(&["192.168.0.1"]).lowest_is("192.168.0.2");
}

#[test]
fn a8_a11_f11_a_bad_exclude_is_refused() {
    for text in ["192.168.0.1/123", "100::2::1", "192.168.0.1/+8", "192.168.0.1/", "192.168.0.01", " ::1", "/8", ""] {
        let error = parse_exclude(text).unwrap_err();
        assert!(error.to_string().starts_with("could not parse exclude range"), "{text}: {error}");
        assert!(error.to_string().contains(&format!("\"{text}\"")), "{text}: {error}");
    }
}

#[test]
fn a10_a_bare_ipv6_address_is_excluded() {
    range("100::2:1/125").exclude(&["100::2:1"]).lowest_is("100::2:2");
}

#[test]
fn a13_excludes_come_in_any_order() {
    range("192.168.0.0/28")
        .exclude(&["192.168.0.0/30", "192.168.0.6/31", "192.168.0.8/31", "192.168.0.4/30"])
        .lowest_is("192.168.0.10");
}

#[test]
fn a15_a16_excludes_and_reservations_fill_the_range() {
    range("192.168.0.0/29")
        .start("192.168.0.0")
        .exclude(&["192.168.0.0/30"])
        .held(&["192.168.0.4", "192.168.0.5", "192.168.0.6"])
        .nothing_is_free();
    range("192.168.0.0/29")
        .exclude(&["192.168.0.4/30"])
        .held(&["192.168.0.1", "192.168.0.2", "192.168.0.3"])
        .nothing_is_free();
}

#[test]
fn a18_a19_bounds_outside_have_no_effect() {
    let row = range("192.168.0.0/29").start("192.168.0.0");
    row.lowest_is("192.168.0.1");
    row.ignores(&["range_start 192.168.0.0 has no effect: it is not within 192.168.0.1-192.168.0.6"]);
    let row = row.end("192.168.0.8");
    row.spans("192.168.0.1", "192.168.0.6");
    row.ignores(&[
        "range_start 192.168.0.0 has no effect: it is not within 192.168.0.1-192.168.0.6",
        "range_end 192.168.0.8 has no effect: it is not within 192.168.0.1-192.168.0.6",
    ]);
}

#[test]
fn a21_a22_the_lowest_that_is_not_reserved() {
    let row = range("192.168.0.0/28").start("192.168.0.1").end("192.168.0.6");
    row.ignores(&[]);
    row.lowest_is("192.168.0.1");
    row.held(&["192.168.0.1", "192.168.0.2", "192.168.0.3"]).lowest_is("192.168.0.4");
}

// === 5.2: from where to where ===

#[test]
fn h15_h18_g20_networks_of_two_addresses_are_too_small() {
    for text in ["192.168.0.0/32", "192.168.0.0/31", "192.168.21.100/31", "2000::/128", "2000::/127"] {
        range(text).is_too_small();
    }
    assert_eq!(
        View::new(&range("192.168.21.101/31").spec).unwrap_err().to_string(),
        "net mask is too short, subnet 192.168.21.100/31 has no usable IP addresses, it is too small: use a prefix of \
         at most /30, or set enable_l3 to assign every address"
    );
    assert_eq!(range("192.168.0.0/30").view().count(), 2);
    assert_eq!(range("2000::/126").view().count(), 2);
}

#[test]
fn h16_first_usable() {
    range("192.168.0.0/30").spans("192.168.0.1", "192.168.0.2");
    range("192.168.0.0/23").spans("192.168.0.1", "192.168.1.254");
    range("2000::/126").spans("2000::1", "2000::2");
    range("2000::/64").spans("2000::1", "2000::ffff:ffff:ffff:fffe");
}

#[test]
fn g1_a_network_of_four() {
    range("192.168.21.100/30").spans("192.168.21.101", "192.168.21.102");
}

#[test]
fn g2_a_start() {
    range("192.168.2.200/24").start("192.168.2.23").spans("192.168.2.23", "192.168.2.254");
}

#[test]
fn g3_a_small_network_with_host_bits() {
    range("192.168.2.200/27").spans("192.168.2.193", "192.168.2.222");
}

#[test]
fn g5_an_end() {
    range("192.168.2.200/24").end("192.168.2.100").spans("192.168.2.1", "192.168.2.100");
}

#[test]
fn g6_a_start_and_an_end() {
    range("192.168.2.200/24").start("192.168.2.50").end("192.168.2.100").spans("192.168.2.50", "192.168.2.100");
}

#[test]
fn g8_inverted_bounds_ignore_the_end() {
    let row = range("192.168.2.200/24").start("192.168.2.100").end("192.168.2.50");
    row.spans("192.168.2.100", "192.168.2.254");
    row.ignores(&["range_end 192.168.2.50 has no effect: it comes before 192.168.2.100, where the range begins"]);
}

#[test]
fn g9_start_and_end_are_one_address() {
    range("192.168.2.200/24").start("192.168.2.50").end("192.168.2.50").is_all(&["192.168.2.50"]);
}

#[test]
fn g11_to_g13_ipv6_networks() {
    range("fd:db8:abcd:12::0/96").spans("fd:db8:abcd:12::1", "fd:db8:abcd:12::ffff:fffe");
    range("2001:db8:abcd:12::0/96").spans("2001:db8:abcd:12::1", "2001:db8:abcd:12::ffff:fffe");
    range("2001:db8:abcd:12::0/64").spans("2001:db8:abcd:12::1", "2001:db8:abcd:12:ffff:ffff:ffff:fffe");
}

#[test]
fn g14_to_g18_ipv6_bounds() {
    let at = |end: &str| format!("2001:db8:abcd:12::{end}");
    let row = || range("2001:db8:abcd:12::0/64");
    row().end(&at("100")).spans(&at("1"), &at("100"));
    row().start(&at("50")).end(&at("100")).spans(&at("50"), &at("100"));
    row().start(&at("100")).end(&at("50")).spans(&at("100"), "2001:db8:abcd:12:ffff:ffff:ffff:fffe");
    row().start(&at("100")).end(&at("100")).is_all(&[&at("100")]);
}

// === 2.1 and 2.2: interval and excludes ===

#[test]
fn an_end_at_the_broadcast_address_is_the_last_usable_address() {
    range("10.0.0.0/24").end("10.0.0.255").spans("10.0.0.1", "10.0.0.254");
    range("fd00::/120").end("fd00::ff").spans("fd00::1", "fd00::fe");
}

#[test]
fn bounds_of_the_other_family_have_no_effect() {
    let row = range("10.0.0.0/30").start("fd00::1").end("::ffff:10.0.0.1");
    row.is_all(&["10.0.0.1", "10.0.0.2"]);
    row.ignores(&[
        "range_start fd00::1 has no effect: it is not within 10.0.0.1-10.0.0.2",
        "range_end ::ffff:10.0.0.1 has no effect: it is not within 10.0.0.1-10.0.0.2",
    ]);
}

#[test]
fn excludes_with_host_bits_are_masked() {
    let view = range("192.168.2.0/24").exclude(&["192.168.2.229/30"]).view();
    assert_eq!(view.count(), 250);
    for held in ["192.168.2.228", "192.168.2.231"] {
        assert!(!view.contains(address(held)), "{held}");
    }
    assert!(view.contains(address("192.168.2.227")) && view.contains(address("192.168.2.232")));
    // An exclude that nobody masked on the way does the same.
    let mut spec = ViewSpec::new("192.168.2.0/24".parse().unwrap());
    spec.excludes.push("192.168.2.229/30".parse().unwrap());
    assert_eq!(View::new(&spec).unwrap(), view);
}

#[test]
fn excludes_elsewhere_have_no_effect() {
    let row = range("10.0.0.0/29").exclude(&["fd00::/8", "10.0.1.0/24", "10.0.0.2"]);
    row.is_all(&["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    row.ignores(&[
        "exclude fd00::/8 has no effect: it has no address in common with 10.0.0.0/29",
        "exclude 10.0.1.0/24 has no effect: it has no address in common with 10.0.0.0/29",
    ]);
}

#[test]
fn an_exclude_that_is_wider_than_the_range_leaves_nothing() {
    let view = range("10.0.0.0/24").exclude(&["10.0.0.0/8"]).view();
    assert_eq!((view.count(), view.first(), view.last(), view.nth(0)), (0, None, None, None));
    assert_eq!(view.block_spans().count(), 0);
    assert_eq!(view.offsets(BlockNumber::of(address("10.0.0.1"))), RoaringBitmap::new());
    assert!(view.ignored().is_empty());
}

#[test]
fn excludes_overlap_touch_and_repeat() {
    let row = range("10.0.0.0/28").exclude(&["10.0.0.4/30", "10.0.0.4/31", "10.0.0.8", "10.0.0.9", "10.0.0.4/30"]);
    row.is_all(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.14"]);
}

#[test]
fn w11_half_of_a_network_is_excluded() {
    range("caa5::0/112").exclude(&["caa5::0/113"]).lowest_is("caa5::8000");
}

// === the fork: enable_l3 ===

#[test]
fn f1_l3_assigns_the_network_address() {
    range("192.168.0.0/24").l3().lowest_is("192.168.0.0");
    range("192.168.0.0/24").l3().spans("192.168.0.0", "192.168.0.255");
}

#[test]
fn f3_without_l3_the_network_address_is_reserved() {
    range("192.168.0.0/30").lowest_is("192.168.0.1");
}

#[test]
fn f4_l3_a_network_of_four_has_four() {
    range("192.168.0.0/30").l3().is_all(&["192.168.0.0", "192.168.0.1", "192.168.0.2", "192.168.0.3"]);
}

#[test]
fn f6_l3_with_start_and_end() {
    range("10.0.0.0/24").l3().start("10.0.0.10").end("10.0.0.20").spans("10.0.0.10", "10.0.0.20");
}

#[test]
fn f7_l3_with_an_exclude() {
    range("10.0.0.0/30").l3().exclude(&["10.0.0.0/31"]).lowest_is("10.0.0.2");
}

#[test]
fn f8_l3_a_network_of_one() {
    range("10.0.0.5/32").l3().is_all(&["10.0.0.5"]);
    range("10.0.0.5/32").l3().held(&["10.0.0.5"]).nothing_is_free();
    range("10.0.0.4/31").l3().is_all(&["10.0.0.4", "10.0.0.5"]);
    range("fd00::5/128").l3().is_all(&["fd00::5"]);
    range("fd00::4/127").l3().is_all(&["fd00::4", "fd00::5"]);
}

#[test]
fn l3_bounds_may_be_the_edges() {
    let row = range("10.0.0.0/24").l3().start("10.0.0.0").end("10.0.0.255");
    row.ignores(&[]);
    assert_eq!(row.view().count(), 256);
}

// === what differs from the Go plugin on purpose ===

#[test]
fn addresses_that_end_in_zero_are_not_assigned() {
    let view = range("10.0.0.0/16").view();
    assert!(!view.uses_zero());
    assert!(!view.contains(address("10.0.1.0")));
    assert!(view.contains(address("10.0.0.255")) && view.contains(address("10.0.1.255")));
    // 2^16, less 256 that end in .0 (the network address among them) and the broadcast address.
    assert_eq!(view.count(), 65_536 - 256 - 1);
    assert_eq!(view.iter().nth(255), Some(address("10.0.1.1")));
    assert!(range("10.0.0.0/16").l3().view().contains(address("10.0.1.0")));
}

#[test]
fn a_start_or_an_end_in_zero_is_honoured_and_then_left_out() {
    range("10.0.0.0/16").start("10.0.1.0").end("10.0.2.0").spans("10.0.1.1", "10.0.1.255");
    let row = range("10.0.0.0/16").start("10.0.1.0").end("10.0.1.0");
    row.nothing_is_free();
    row.ignores(&[]);
}

#[test]
fn ipv6_assigns_offset_zero_but_not_the_network_address() {
    let view = range("fd00::/64").view();
    assert!(view.uses_zero());
    assert!(view.contains(address("fd00::100")) && !view.contains(address("fd00::")));
    assert_eq!(view.nth(255), Some(address("fd00::100")));
}

#[test]
fn gateways_in_the_range_are_left_out() {
    range("10.0.0.0/29").gateway("10.0.0.1").gateway("fd00::1").gateway("192.0.2.1").lowest_is("10.0.0.2");
    range("fd00::/126").gateway("fd00::1").is_all(&["fd00::2"]);
    range("10.0.0.5/32").l3().gateway("10.0.0.5").nothing_is_free();
    // A gateway elsewhere is ordinary and worth no warning.
    range("10.0.0.0/29").gateway("192.0.2.1").ignores(&[]);
}

#[test]
fn ipv4_mapped_ranges_are_refused() {
    let refused = |row: Row| View::new(&row.spec).unwrap_err().to_string();
    assert_eq!(
        refused(range("::ffff:10.0.0.0/120")),
        "::ffff:10.0.0.0/120 is an IPv4-mapped IPv6 range or address: write it as the IPv4 that it stands for, \
         10.0.0.0/24"
    );
    assert!(refused(range("::ffff:0:0/96").l3()).ends_with("stands for, 0.0.0.0/0"));
    assert!(refused(range("::ffff:10.0.0.1-::ffff:10.0.0.9/64")).ends_with("stands for, 10.0.0.1"));
    assert!(refused(range("::/64").end("::ffff:10.0.0.9")).ends_with("stands for, 10.0.0.9"));
    // What only looks alike, and what is wider, is IPv6.
    for text in ["::10.0.0.0/120", "::fffe:0:0/96", "::/0", "::/64", "64:ff9b::/96"] {
        assert_eq!(range(text).view().family(), Family::V6, "{text}");
    }
}

// === the text of a range ===

#[test]
fn k1_w8_w16_a_range_from_start_to_end() {
    range("192.168.1.5-192.168.1.25/24").spans("192.168.1.5", "192.168.1.25");
    assert_eq!(range("192.168.1.5-192.168.1.25/24").view().cidr().to_string(), "192.168.1.0/24");
    range("fd00:0:0:10:0:0:3:1-fd00:0:0:10:0:0:3:6/64").spans("fd00:0:0:10:0:0:3:1", "fd00:0:0:10:0:0:3:6");
}

#[test]
fn a_range_that_cannot_be_read_names_what_is_wrong() {
    let refused = |text: &str| text.parse::<ViewSpec>().unwrap_err();
    assert_eq!(refused("10.0.0.0"), SpecError::Cidr { text: "10.0.0.0".into() });
    assert_eq!(refused("10.0.0.0/33"), SpecError::Cidr { text: "10.0.0.0/33".into() });
    assert_eq!(refused("010.0.0.0/8"), SpecError::Cidr { text: "010.0.0.0/8".into() });
    assert_eq!(refused("10.0.0.0/256"), SpecError::Cidr { text: "10.0.0.0/256".into() });
    assert_eq!(refused("10.0.0.1 -10.0.0.9/24"), SpecError::Start { text: "10.0.0.1 ".into() });
    assert_eq!(refused("10.0.0.1-10.0.0.9"), SpecError::End { text: "10.0.0.9".into() });
    assert_eq!(
        refused("10.0.1.1-10.0.0.9/24").to_string(),
        "invalid range start for CIDR 10.0.0.0/24: 10.0.1.1: begin the range with an address of 10.0.0.0/24"
    );
}

// === the ends of the families ===

#[test]
fn all_of_ipv4() {
    let view = range("0.0.0.0/0").view();
    // 2^24 addresses end in .0, the network address among them; the broadcast address is the one more.
    assert_eq!(view.count(), (1 << 32) - (1 << 24) - 1);
    assert_eq!((view.first(), view.last()), (Some(address("0.0.0.1")), Some(address("255.255.255.254"))));
    assert_eq!(view.nth(view.count() - 1), view.last());
    assert_eq!(view.nth(view.count()), None);
    let last = BlockNumber::last(Family::V4);
    assert_eq!(view.block_spans().collect::<Vec<_>>(), [BlockSpan { first: BlockNumber::of(address("::")), last }]);
    assert_eq!(view.offsets(last), RoaringBitmap::from_iter(1..255));

    let view = range("0.0.0.0/0").l3().view();
    assert_eq!(view.count(), 1 << 32);
    assert_eq!(view.nth((1 << 32) - 1), Some(address("255.255.255.255")));
    assert_eq!(view.offsets(last), RoaringBitmap::from_iter(0..256));
}

#[test]
fn all_of_ipv6() {
    let ones = address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    let view = range("::/0").view();
    assert_eq!(view.count(), u128::MAX - 1);
    assert_eq!((view.first(), view.last()), (Some(address("::1")), ones.checked_previous()));
    assert_eq!((view.nth(u128::MAX - 2), view.nth(u128::MAX - 1)), (view.last(), None));

    let view = range("::/0").l3().view();
    assert_eq!(view.count(), u128::MAX, "2^128 is the only count that saturates");
    assert_eq!((view.nth(0), view.nth(u128::MAX)), (Some(address("::")), Some(ones)));
    let last = BlockNumber::last(Family::V6);
    assert_eq!(view.block_spans().map(|span| span.last).collect::<Vec<_>>(), [last]);
    assert_eq!(view.offsets(last).len(), 256);

    let view = range("::/0").l3().exclude(&["8000::1"]).view();
    assert_eq!(view.count(), u128::MAX, "this one is exact");
    assert_eq!((view.nth(u128::MAX - 1), view.nth(u128::MAX)), (Some(ones), None));
}

#[test]
fn half_of_ipv6() {
    let view = range("::/1").view();
    assert_eq!(view.count(), (1 << 127) - 2);
    assert_eq!(view.last(), Some(address("7fff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")));
    let view = range("8000::/1").l3().view();
    assert_eq!((view.count(), view.first()), (1 << 127, Some(address("8000::"))));
    assert_eq!(view.last().and_then(Address::checked_next), None);
}

#[test]
fn a_foreign_block_number_has_no_offsets() {
    let view = range("255.255.255.0/24").l3().view();
    assert_eq!(view.offsets(BlockNumber::last(Family::V6)), RoaringBitmap::new());
    assert_eq!(view.offsets(BlockNumber::of(address("0.0.0.0"))), RoaringBitmap::new());
}

#[test]
fn blocks_that_hold_only_their_zero_are_no_blocks_of_the_view() {
    let row = range("10.0.0.0/22").exclude(&["10.0.1.1/32", "10.0.1.2/31", "10.0.1.4/30", "10.0.1.8/29"]);
    let row = row.exclude(&["10.0.1.16/28", "10.0.1.32/27", "10.0.1.64/26", "10.0.1.128/25"]);
    let view = row.view();
    let spans: Vec<_> = view.block_spans().map(|span| (span.first.get() & 0xff, span.last.get() & 0xff)).collect();
    assert_eq!(spans, [(0, 0), (2, 3)]);
    assert_eq!(view.count(), 255 + 255 + 254);
}
