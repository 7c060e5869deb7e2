//! JSON (RFC 8259), parsed into values with their positions in the text.
//!
//! [`parse`] is strict. It refuses text outside the RFC's grammar, a byte order mark, bytes that are not UTF-8,
//! half a surrogate pair, a number beyond the range of a double, and text beyond the limits of depth and size.
//! A number too small for a double becomes zero, and an integer beyond 64 bits becomes the nearest double. An
//! object keeps every member in order, including duplicate keys, so that its reader can report them.

mod parse;

use std::fmt;

pub use parse::parse;

use crate::limits::{JSON_BYTES, JSON_DEPTH};

/// A position in a text. Lines and columns count from 1. Columns count characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line. Line feeds end lines.
    pub line: u32,
    /// The character within the line.
    pub column: u32,
}

impl Position {
    /// The start of a text.
    pub const START: Position = Position { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and its position.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The position of its first character.
    pub at: Position,
    /// The kind and content.
    pub kind: Kind,
}

/// The kind and content of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string with its escapes decoded.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// The members of an object in the order of the text.
    Object(Vec<Member>),
}

impl Kind {
    /// The kind as a noun phrase for an error message.
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
    /// A non-negative integer without sign, fraction or exponent that fits.
    Unsigned(u64),
    /// A negative integer that fits.
    Negative(i64),
    /// Any other number, including `-0`; always finite.
    Float(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Unsigned(number) => write!(f, "{number}"),
            Number::Negative(number) => write!(f, "{number}"),
            // With its point or exponent, because 80.0 is not an integer and the message must show why.
            Number::Float(number) => write!(f, "{number:?}"),
        }
    }
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The position of the key's quotation mark.
    pub at: Position,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// A syntax error; always the fault of the text's author. Displayed, it names the found and the expected text,
/// on one line and without the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The position of the first error.
    pub at: Position,
    /// The text found there.
    pub found: Found,
    /// A description of the expected text.
    pub expected: &'static str,
}

/// The text at the position of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The text ends too early.
    End,
    /// This character.
    Character(char),
    /// A byte order mark.
    ByteOrderMark,
    /// A byte that is not valid UTF-8 at this position.
    Byte(u8),
    /// Half of a surrogate pair, written as an escape.
    Surrogate(u16),
    /// A number beyond the range of a double.
    Huge,
    /// An array or object beyond the limit of nesting.
    Depth,
    /// A text beyond the limit of size.
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
