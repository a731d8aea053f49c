//! Bytes as text: five characters for four bytes, a fifth more than the bytes, where base64 takes a third.
//!
//! The alphabet is the printable ASCII without space and without what JSON, as the API server writes it, would spell with
//! two or six characters (`"`, `\`, `<`, `>`, `&`), and without what a shell or a person trips over first (`'`, `` ` ``,
//! `$`).
//!
//! ```
//! use whereabouts::stores::kubernetes::base85;
//!
//! assert_eq!(base85::encode(b"block"), "vR,{?yx");
//! assert_eq!(base85::decode("vR,{?yx"), Some(b"block".to_vec()));
//! ```

/// By value.
const ALPHABET: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!#%()*+,-./:;=?@[]^_{|}";

/// The values of a character that has none.
const NONE: u8 = 255;

/// By character.
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        #[expect(clippy::indexing_slicing, reason = "a constant, checked when it is compiled")]
        {
            values[ALPHABET[value] as usize] = value as u8;
        }
        value += 1;
    }
    values
}

/// The text of some bytes. A last group of less than four bytes has one character more than bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4 * 5 + 5);
    for group in bytes.chunks(4) {
        let mut padded = [0; 4];
        for (place, byte) in padded.iter_mut().zip(group) {
            *place = *byte;
        }
        let mut number = u32::from_be_bytes(padded);
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = usize::try_from(number % 85).unwrap_or(0);
            number /= 85;
        }
        let characters = digits.iter().take(group.len() + 1).filter_map(|digit| ALPHABET.get(*digit));
        text.extend(characters.map(|character| char::from(*character)));
    }
    text
}

/// The bytes of a text; `None` where it is not the text of any.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4 + 4);
    for group in text.as_bytes().chunks(5) {
        let n = group.len().checked_sub(1).filter(|n| *n > 0)?;
        // What is missing counts as the highest digit, so that the bytes that are kept come out as they were.
        let mut number: u32 = 0;
        for place in 0..5 {
            let value = match group.get(place) {
                Some(character) => *VALUES.get(usize::from(*character)).filter(|value| **value != NONE)?,
                None => 84,
            };
            number = number.checked_mul(85)?.checked_add(u32::from(value))?;
        }
        bytes.extend(number.to_be_bytes().iter().take(n));
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_spells_every_character_as_itself() {
        let alphabet = String::from_utf8(ALPHABET.to_vec()).unwrap();
        assert_eq!(serde_json::to_string(&alphabet).unwrap(), format!("\"{alphabet}\""));
        assert!(!alphabet.contains(['<', '>', '&']), "the API server would write \\u003c");
    }

    #[test]
    fn known_texts_stay() {
        for (bytes, text) in [(&b""[..], ""), (&[0], "00"), (&[255; 4], "{nSc0"), (&[1, 2, 3, 4, 5], "0rJua1P")] {
            assert_eq!(encode(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(bytes: Vec<u8>) {
            let text = encode(&bytes);
            prop_assert!(text.len() <= bytes.len() / 4 * 5 + 5);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn any_text_is_bytes_or_none(text in "\\PC{0,40}") {
            let _ = decode(&text);
        }
    }
}
