//! JSON (RFC 8259) as values that know where they stand in their text.
//!
//! [`parse`] is strict: what the RFC's grammar does not have is refused, and so are a byte order
//! mark, bytes that are not UTF-8, half a surrogate pair, a number past what a double holds, and
//! whatever passes the bounds of depth and size. A number below what a double holds becomes zero,
//! and a whole one past 64 bits the nearest double. An object keeps every member, in order, even
//! those whose key it has already: its reader knows better what to say about them.

mod parse;

use std::fmt;

pub use parse::parse;

use crate::limits::{JSON_BYTES, JSON_DEPTH};

/// A place in a text: both count from 1, and columns count characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, as line feeds end them.
    pub line: u32,
    /// The character within the line.
    pub column: u32,
}

impl Position {
    /// Where a text begins.
    pub const START: Position = Position { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where its first character stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string, its escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object's members in the order of the text.
    Object(Vec<Member>),
}

impl Kind {
    /// The kind in words, as a sentence about what was found needs them.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool(true) => "true",
            Kind::Bool(false) => "false",
            Kind::Number(_) => "a number",
            Kind::String(_) => "a string",
            Kind::Array(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole one, without sign, fraction or exponent, that fits.
    Unsigned(u64),
    /// The same below zero.
    Negative(i64),
    /// Any other, `-0` among them; always finite.
    Float(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Unsigned(number) => write!(f, "{number}"),
            Number::Negative(number) => write!(f, "{number}"),
            // With its point or exponent: 80.0 is not 80 to who takes whole numbers.
            Number::Float(number) => write!(f, "{number:?}"),
        }
    }
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Where the key's quotation mark stands.
    pub at: Position,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// Why a text is not JSON; always its writer's fault. Displayed, it says what was found and what
/// is expected, on one line and without the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where the first thing wrong stands.
    pub at: Position,
    /// What stands there.
    pub found: Found,
    /// What has to stand there, in words.
    pub expected: &'static str,
}

/// What a text has where it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it ends too early.
    End,
    /// This character.
    Character(char),
    /// A byte order mark.
    ByteOrderMark,
    /// This byte, which is no UTF-8 there.
    Byte(u8),
    /// Half a surrogate pair, as an escape.
    Surrogate(u16),
    /// A number past what a double holds.
    Huge,
    /// One array or object too many within each other.
    Depth,
    /// A text longer than its bound.
    Size,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::End => f.write_str("the end of the text"),
            Found::Character('\n') => f.write_str("the end of the line"),
            Found::Character('\'') => f.write_str("a single quotation mark"),
            Found::Character(c) if c.is_control() || c.is_whitespace() => {
                write!(f, "the character U+{:04X}", u32::from(*c))
            }
            Found::Character(c) => write!(f, "'{c}'"),
            Found::ByteOrderMark => f.write_str("a byte order mark"),
            Found::Byte(byte) => write!(f, "the byte 0x{byte:02x}, which is not UTF-8"),
            Found::Surrogate(unit) => write!(f, "\\u{unit:04x}, half a surrogate pair"),
            Found::Huge => f.write_str("a number too large"),
            Found::Depth => write!(f, "more than {JSON_DEPTH} arrays and objects within each other"),
            Found::Size => write!(f, "a text of more than {JSON_BYTES} bytes"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "found {}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for Error {}
