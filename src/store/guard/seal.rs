//! Seals what the guard stores. Every line carries a code over itself and the code of the line
//! before it (HMAC-SHA-256, the first 16 bytes), so a line that is altered, removed or inserted is
//! noticed. With a key from a file, nobody without the key can write a line that counts. Without
//! one, the code only detects damage.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

/// The code of a line.
type Code = [u8; 16];

/// The key if the operator gives none. It is public: such a seal proves no author.
const WITHOUT_KEY: &[u8] = b"stacktoken guard";

/// Makes and checks codes.
pub(super) struct Seal(hmac::Key);

/// The seals of consecutive lines.
pub(super) struct Chain<'a> {
    seal: &'a Seal,
    last: Code,
}

impl Seal {
    pub fn new(secret: Option<&[u8]>) -> Self {
        let secret = secret.unwrap_or(WITHOUT_KEY);
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    fn code(&self, before: &[u8], body: &[u8]) -> Code {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&(before.len() as u64).to_le_bytes());
        context.update(before);
        context.update(body);
        let mut code = Code::default();
        let tag = context.sign();
        code.copy_from_slice(&tag.as_ref()[..16]);
        code
    }

    /// Begins the lines of a file. Its name is part of the first code, so that files cannot be
    /// exchanged.
    pub fn chain(&self, file: &str) -> Chain<'_> {
        self.resume(self.code(b"file", file.as_bytes()))
    }

    /// Continues the lines of a file after the line with this code.
    pub const fn resume(&self, last: Code) -> Chain<'_> {
        Chain { seal: self, last }
    }

    /// Continues the lines of a file after this line. Returns `None` if it has no code.
    pub fn resume_after(&self, line: &str) -> Option<Chain<'_>> {
        let (code, _) = line.split_once(' ')?;
        let code = URL_SAFE_NO_PAD.decode(code).ok()?;
        Some(self.resume(code.try_into().ok()?))
    }

    /// Returns the content of a file with one line.
    pub fn write(&self, file: &str, value: &impl Serialize) -> Vec<u8> {
        let mut text = String::new();
        self.chain(file).write(&mut text, value);
        text.into_bytes()
    }

    /// Reads a file with one line. Returns `None` if its seal is not right.
    pub fn read<T: DeserializeOwned>(&self, file: &str, bytes: &[u8]) -> Option<T> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        self.chain(file).read(line)
    }
}

impl Chain<'_> {
    /// Returns the code of the last line, from which another chain continues.
    pub const fn last(&self) -> Code {
        self.last
    }

    /// Appends a line with its code and a line break.
    pub fn write(&mut self, text: &mut String, value: &impl Serialize) {
        let body = serde_json::to_string(value).unwrap_or_default();
        self.last = self.seal.code(&self.last, body.as_bytes());
        URL_SAFE_NO_PAD.encode_string(self.last, text);
        text.push(' ');
        text.push_str(&body);
        text.push('\n');
    }

    /// Reads the next line, without its line break. Returns `None` if its code is not right.
    pub fn read<T: DeserializeOwned>(&mut self, line: &str) -> Option<T> {
        let (code, body) = line.split_once(' ')?;
        let expected = self.seal.code(&self.last, body.as_bytes());
        if URL_SAFE_NO_PAD.decode(code).ok()? != expected {
            return None;
        }
        self.last = expected;
        serde_json::from_str(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seal: &Seal, numbers: &[u32]) -> Vec<String> {
        let (mut text, mut chain) = (String::new(), seal.chain("a"));
        for number in numbers {
            chain.write(&mut text, number);
        }
        text.lines().map(str::to_owned).collect()
    }

    fn read(seal: &Seal, file: &str, lines: &[String]) -> Vec<u32> {
        let mut chain = seal.chain(file);
        let read = lines.iter().map_while(|line| chain.read(line));
        read.collect()
    }

    #[test]
    fn lines_count_only_in_their_file_in_their_order_and_under_their_key() {
        let seal = Seal::new(Some(b"k"));
        let all = lines(&seal, &[1, 2, 3]);
        assert_eq!(read(&seal, "a", &all), [1, 2, 3]);
        assert!(read(&seal, "b", &all).is_empty(), "another file");
        assert!(read(&Seal::new(None), "a", &all).is_empty(), "another key");
        let without = [all[0].clone(), all[2].clone()];
        assert_eq!(read(&seal, "a", &without), [1], "a line was removed");
        let altered = [all[0].clone(), all[1].replace(" 2", " 4")];
        assert_eq!(read(&seal, "a", &altered), [1], "a line was altered");
    }
}
