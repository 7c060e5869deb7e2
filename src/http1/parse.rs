//! Parses heads (RFC 9112, 2 to 5) strictly: a head that two parsers could read differently is refused. One
//! pass over contiguous bytes; spans are offsets into them. `Ok(None)` means that the head is valid so far but
//! incomplete.

use super::scan::{self, Scan, Work};
use crate::http::fields::{Field, Name, Span};
use crate::http::framing::is_authority;
use crate::http::head::{Head, Start, Version};
use crate::http::message_error::MessageError;
use crate::http::part::Role;
use crate::limits::{HEAD_BYTES, HEAD_FIELDS, METHOD_BYTES, RESPONSE_FIELDS, TARGET_BYTES, TRAILER_BYTES};

/// Parses a request's head. Returns its length if it is complete.
pub fn request(bytes: &[u8], head: &mut Head) -> Result<Option<usize>, MessageError> {
    scan::with(RequestHead { bytes, head })
}

/// Parses a response's head. Returns its length if it is complete.
pub fn response(bytes: &[u8], head: &mut Head) -> Result<Option<usize>, MessageError> {
    scan::with(ResponseHead { bytes, head })
}

struct RequestHead<'a> {
    bytes: &'a [u8],
    head: &'a mut Head,
}

impl Work for RequestHead<'_> {
    type Output = Result<Option<usize>, MessageError>;

    #[inline(always)]
    fn run(self, scan: impl Scan) -> Self::Output {
        request_by(scan, self.bytes, self.head)
    }
}

struct ResponseHead<'a> {
    bytes: &'a [u8],
    head: &'a mut Head,
}

impl Work for ResponseHead<'_> {
    type Output = Result<Option<usize>, MessageError>;

    #[inline(always)]
    fn run(self, scan: impl Scan) -> Self::Output {
        response_by(scan, self.bytes, self.head)
    }
}

#[inline(always)]
fn request_by(scan: impl Scan, bytes: &[u8], head: &mut Head) -> Result<Option<usize>, MessageError> {
    let method = scan.token_end(bytes);
    if method > METHOD_BYTES {
        return Err(MessageError::MethodTooLong);
    }
    match bytes.get(method) {
        None => return incomplete(bytes, None),
        Some(b' ') if method > 0 => {}
        Some(_) => return Err(MessageError::RequestLine),
    }
    let start = method + 1;
    let end = start + scan.target_end(&bytes[start..]);
    if end - start > TARGET_BYTES {
        return Err(MessageError::TargetTooLong);
    }
    match bytes.get(end) {
        None => return incomplete(bytes, None),
        Some(b' ') if end > start => {}
        // A line that ends here has no version, as in HTTP/0.9. Otherwise the byte is not allowed in a target.
        Some(b' ' | b'\r' | b'\n') => return Err(MessageError::RequestLine),
        Some(_) => return Err(MessageError::Target),
    }
    let Some((version, line_end)) = version(bytes, end + 1, MessageError::RequestLine)? else {
        return incomplete(bytes, None);
    };
    let Some(at) = line_break(bytes, line_end, MessageError::RequestLine)? else { return incomplete(bytes, None) };
    let (path, authority) = target(bytes, Span::new(start, end))?;
    (head.version, head.ended) = (version, false);
    head.start = Start::Request { method: Span::new(0, method), path, authority, protocol: None };
    fields(scan, bytes, at, Role::Server, HEAD_FIELDS, &mut head.fields)
}

#[inline(always)]
fn response_by(scan: impl Scan, bytes: &[u8], head: &mut Head) -> Result<Option<usize>, MessageError> {
    let Some((version, at)) = version(bytes, 0, MessageError::StatusLine)? else { return incomplete(bytes, None) };
    let code = &bytes[at..bytes.len().min(at + 4)];
    let well_formed = |(i, b): (usize, &u8)| if i == 0 { *b == b' ' } else { b.is_ascii_digit() };
    if !code.iter().enumerate().all(well_formed) {
        return Err(MessageError::StatusLine);
    }
    let [_, hundreds, tens, ones] = *code else { return incomplete(bytes, None) };
    let status = [hundreds, tens, ones].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if status < 100 {
        return Err(MessageError::StatusLine);
    }
    // Some servers omit the space before an absent reason. It is harmless.
    let after = at + 4;
    let reason = match bytes.get(after) {
        Some(b' ') => after + 1,
        _ => after,
    };
    let end = reason + scan.value_end(&bytes[reason..]);
    if reason == after && end > after {
        return Err(MessageError::StatusLine);
    }
    let Some(next) = line_break(bytes, end, MessageError::StatusLine)? else { return incomplete(bytes, None) };
    (head.version, head.ended) = (version, false);
    head.start = Start::Response { status, reason: Span::new(reason, end) };
    fields(scan, bytes, next, Role::Client, RESPONSE_FIELDS, &mut head.fields)
}

/// Parses a trailer section received by `role`. Returns its length with the empty line if it is complete.
pub fn trailers(bytes: &[u8], role: Role, fields_out: &mut Vec<Field>) -> Result<Option<usize>, MessageError> {
    let too_large = |refusal| match refusal {
        MessageError::HeadTooLarge | MessageError::TooManyFields => MessageError::TrailersTooLarge,
        refusal => refusal,
    };
    match scan::with(TrailerSection { bytes, role, out: fields_out }).map_err(too_large)? {
        None if bytes.len() >= TRAILER_BYTES => Err(MessageError::TrailersTooLarge),
        Some(n) if n > TRAILER_BYTES => Err(MessageError::TrailersTooLarge),
        length => Ok(length),
    }
}

struct TrailerSection<'a> {
    bytes: &'a [u8],
    role: Role,
    out: &'a mut Vec<Field>,
}

impl Work for TrailerSection<'_> {
    type Output = Result<Option<usize>, MessageError>;

    #[inline(always)]
    fn run(self, scan: impl Scan) -> Self::Output {
        fields(scan, self.bytes, 0, self.role, HEAD_FIELDS, self.out)
    }
}

/// Checks an incomplete or complete head against the size limit.
fn incomplete(bytes: &[u8], length: Option<usize>) -> Result<Option<usize>, MessageError> {
    match length {
        None if bytes.len() >= HEAD_BYTES => Err(MessageError::HeadTooLarge),
        Some(n) if n > HEAD_BYTES => Err(MessageError::HeadTooLarge),
        length => Ok(length),
    }
}

/// Parses `HTTP/1.x` at an offset. Returns the version and the offset after it, or `None` if the bytes end too
/// early.
fn version(bytes: &[u8], at: usize, malformed: MessageError) -> Result<Option<(Version, usize)>, MessageError> {
    const NAME: &[u8] = b"HTTP/";
    let text = &bytes[at..bytes.len().min(at + 8)];
    let name = &text[..text.len().min(NAME.len())];
    if name != &NAME[..name.len()] {
        return Err(malformed);
    }
    let [.., major, dot, minor] = *text else { return Ok(None) };
    if text.len() < 8 {
        return Ok(None);
    }
    if !major.is_ascii_digit() || dot != b'.' || !minor.is_ascii_digit() {
        return Err(malformed);
    }
    match (major, minor) {
        (b'1', b'0') => Ok(Some((Version::Http10, at + 8))),
        // A later minor version is treated as the latest one known (RFC 9110, 2.5).
        (b'1', _) => Ok(Some((Version::Http11, at + 8))),
        _ => Err(MessageError::Version),
    }
}

/// Expects CRLF at an offset. Returns the offset after it, or `None` if the bytes end too early.
fn line_break(bytes: &[u8], at: usize, other: MessageError) -> Result<Option<usize>, MessageError> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (Some(b'\r'), Some(_)) => Err(MessageError::BareCr),
        (Some(b'\r'), None) | (None, _) => Ok(None),
        (Some(b'\n'), _) => Err(MessageError::BareLf),
        (Some(_), _) => Err(other),
    }
}

/// Splits a request target (RFC 9112, 3.2) into its path and, in absolute form, its authority.
fn target(bytes: &[u8], span: Span) -> Result<(Span, Option<Span>), MessageError> {
    let text = span.of(bytes);
    // The asterisk form belongs to OPTIONS. The authority form belongs to CONNECT, which is refused later
    // because of its method.
    if text.first() == Some(&b'/') || text == b"*" && bytes.starts_with(b"OPTIONS ") || bytes.starts_with(b"CONNECT ") {
        return Ok((span, None));
    }
    let scheme = text.iter().position(|&b| b == b':').unwrap_or(0);
    let known = text[..scheme].eq_ignore_ascii_case(b"http") || text[..scheme].eq_ignore_ascii_case(b"https");
    if !known || !text[scheme..].starts_with(b"://") {
        return Err(MessageError::Target);
    }
    let start = scheme + 3;
    let end = start + text[start..].iter().position(|b| b"/?".contains(b)).unwrap_or(text.len() - start);
    if start == end || !is_authority(&text[start..end]) {
        return Err(MessageError::Target);
    }
    let at = span.start as usize;
    Ok((Span::new(at + end, at + text.len()), Some(Span::new(at + start, at + end))))
}

/// The index of the first byte that ends a field value, or the length. In a response, control bytes except NUL,
/// CR and LF belong to the value: no parser takes them for an end, applications send them, and a recipient may
/// keep them (RFC 9110, 5.5).
#[inline(always)]
pub(crate) fn value_end(scan: impl Scan, bytes: &[u8], role: Role) -> usize {
    let mut end = scan.value_end(bytes);
    if role == Role::Client {
        while bytes.get(end).is_some_and(|byte| !matches!(byte, 0 | b'\r' | b'\n')) {
            end += 1 + scan.value_end(&bytes[end + 1..]);
        }
    }
    end
}

/// Parses at most `most` field lines and the empty line after them. Returns the offset after it if the section
/// is complete.
#[inline(always)]
fn fields(
    scan: impl Scan,
    bytes: &[u8],
    mut at: usize,
    role: Role,
    most: usize,
    out: &mut Vec<Field>,
) -> Result<Option<usize>, MessageError> {
    out.clear();
    loop {
        let name_end = at + scan.token_end(&bytes[at..]);
        match bytes.get(name_end) {
            None => return incomplete(bytes, None),
            Some(b':') if name_end > at => {}
            Some(_) if name_end == at => match bytes[at] {
                b'\r' | b'\n' => {
                    return match line_break(bytes, at, MessageError::FieldName)? {
                        Some(end) => incomplete(bytes, Some(end)),
                        None => incomplete(bytes, None),
                    };
                }
                b' ' | b'\t' => return Err(MessageError::FieldFolded),
                _ => return Err(MessageError::FieldName),
            },
            Some(b' ' | b'\t') => return Err(MessageError::FieldNameSpace),
            Some(_) => return Err(MessageError::FieldName),
        }
        if out.len() == most {
            return Err(MessageError::TooManyFields);
        }
        let mut start = name_end + 1;
        while matches!(bytes.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let line_end = start + value_end(scan, &bytes[start..], role);
        let Some(after) = line_break(bytes, line_end, MessageError::FieldValue)? else {
            return incomplete(bytes, None);
        };
        let mut end = line_end;
        while end > start && matches!(bytes[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let name = Name::find(&bytes[at..name_end]);
        out.push(Field { name, name_span: Span::new(at, name_end), value_span: Span::new(start, end) });
        at = after;
    }
}

#[cfg(test)]
mod tests;
