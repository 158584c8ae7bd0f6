//! What two routers with the same key prove to each other: HMAC-SHA-256 (RFC 2104, FIPS 180-4).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The bytes of a signature.
pub const SIGNATURE: usize = 32;

/// A shared secret. Never shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let key = Hmac::new_from_slice(bytes).expect("any length");
        Self(key)
    }

    /// The signature of `parts`, one after the other. `purpose` keeps what is signed for one use from
    /// being passed off as another's.
    pub fn sign(&self, purpose: u8, parts: &[&[u8]]) -> [u8; SIGNATURE] {
        self.feed(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether `signature` is that of `parts`; takes the same time for every wrong one.
    pub fn is_signed(&self, purpose: u8, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.feed(purpose, parts).verify_slice(signature).is_ok()
    }

    fn feed(&self, purpose: u8, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&[purpose]);
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '\001what' | openssl dgst -sha256 -mac hmac -macopt hexkey:0b…0b` says the same.
    #[test]
    fn a_signature_is_of_key_purpose_and_text() {
        let key = Key::new(&[0x0b; 32]);
        let signature = key.sign(1, &[b"wh", b"at"]);
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, EXPECTED);
        assert!(key.is_signed(1, &[b"what"], &signature));
        assert!(!key.is_signed(2, &[b"what"], &signature), "another purpose");
        assert!(!key.is_signed(1, &[b"What"], &signature), "another text");
        assert!(!Key::new(&[0x0c; 32]).is_signed(1, &[b"what"], &signature), "another key");
        assert!(!key.is_signed(1, &[b"what"], &signature[..31]), "cut short");
    }

    const EXPECTED: &str = "145c985b9d2b9633bddb568824add07d7c0e1164843418e4d9c686d7c21f8b71";
}
