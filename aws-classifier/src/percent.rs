//! Text in which bytes stand as `%` and two hexadecimal digits, and spaces as `+`: keys in S3's notifications, and
//! policies as IAM answers them.

/// The text; `None` when a `%` is followed by something else, or the bytes are no UTF-8.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_and_what_is_not_is_refused() {
        assert_eq!(decoded("a+b%2B%C3%BC%7b"), Some("a b+ü{".to_owned()));
        for broken in ["%", "%4", "%zz", "%é", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
