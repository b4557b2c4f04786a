//! Patterns of ARNs: whether any ARN can match one. A pattern with a mistake in it looks like one that works.
//!
//! In a pattern `*` stands for any characters, also for colons, see [`crate::text::matches_glob`].

use crate::text::one_line;

/// The fields of an ARN between `arn:` and the resource, which may be anything
/// ([AWS General Reference](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html)).
#[derive(Clone, Copy)]
enum Field {
    Partition,
    Service,
    Region,
    Account,
}

const FIELDS: [Field; 4] = [Field::Partition, Field::Service, Field::Region, Field::Account];

/// Whether an ARN can match this pattern, which begins with `arn:`. Case does not matter.
///
/// # Errors
/// What an ARN looks like, when none can.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let lower = pattern.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(':').skip(1).collect();
    if fits(&parts, &FIELDS) {
        return Ok(());
    }
    Err(format!(
        "{:?} matches no ARN: an ARN is arn:partition:service:region:account:resource, one of IAM has no region and 12 digits \
         of account, such as arn:aws:iam::123456789012:role/NAME",
        one_line(pattern, 200)
    ))
}

/// Whether the parts of a pattern can be these fields, and a resource behind them.
fn fits(parts: &[&str], fields: &[Field]) -> bool {
    let Some((part, parts)) = parts.split_first() else { return false };
    let Some((field, fields)) = fields.split_first() else { return true };
    match part.split_once('*') {
        None => field.is(part) && fits(parts, fields),
        // From here the star may go on to the resource.
        Some((head, _)) => field.begins_with(head),
    }
}

impl Field {
    fn is(self, text: &str) -> bool {
        match self {
            Self::Partition | Self::Service => !text.is_empty() && self.begins_with(text),
            Self::Region => self.begins_with(text),
            // `aws` owns what AWS manages.
            Self::Account => text.is_empty() || text == "aws" || (text.len() == 12 && self.begins_with(text)),
        }
    }

    fn begins_with(self, text: &str) -> bool {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match self {
            Self::Partition => text.bytes().zip(*b"aws").all(|(a, b)| a == b) && text.chars().all(is_word),
            Self::Service => text.chars().all(is_word),
            Self::Region => text.chars().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit()),
            Self::Account => (text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit())) || "aws".starts_with(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::matches_glob;
    use proptest::prelude::*;

    #[test]
    fn a_field_in_the_wrong_place_is_noticed() {
        for (pattern, good) in [
            ("arn:aws:iam::123456789012:role/x*", true),
            ("arn:aws:iam::*:role/x*", true),
            ("arn:*:iam::*:role/x", true),
            ("arn:aws:iam::1234*:role/x", true),
            ("arn:aws:ec2:*:security-group/sg-1", true),
            ("arn:aws:logs:*:log-group:/aws/x", true),
            ("arn:aws:iam::aws:policy/ReadOnlyAccess", true),
            ("arn:aws:s3:::bucket", true),
            ("arn:aws-cn:iam::123456789012:root", true),
            ("arn:*", true),
            ("ARN:AWS:IAM::123456789012:ROLE/X", true),
            ("arn:aws:iam:123:role/x*", false),
            ("arn:aws:iam:123456789012:role/x*", false),
            ("arn:aws:iam:123456789012::role/x", false),
            ("arn:aws:iam::1234:role/x", false),
            ("arn:aws:iam::1234567890123*:role/x", false),
            ("arn:aws:iam::role/x", false),
            ("arn:aws:iam::role/x*", false),
            ("arn:iam::123456789012:role/x", false),
            ("arn:aws::123456789012:role/x", false),
            ("arn:aws:iam", false),
            ("arn:", false),
        ] {
            assert_eq!(check_pattern(pattern).is_ok(), good, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_an_arn_is_not_refused(
            service in "iam|ec2|s3", region in "|eu-central-1", account in "|123456789012", resource in "[a-z:/]{1,8}",
            stars in proptest::collection::vec(0_usize..48, 1..5),
        ) {
            let arn = format!("arn:aws:{service}:{region}:{account}:{resource}");
            // Stars over stretches of it.
            let mut pattern = arn.clone();
            for pair in stars.chunks_exact(2) {
                let (from, to) = (pair[0].min(pair[1]).max(4), pair[0].max(pair[1]));
                if from <= to && to <= pattern.len() {
                    pattern.replace_range(from..to, "*");
                }
            }
            prop_assert!(matches_glob(&pattern, &arn));
            prop_assert!(check_pattern(&pattern).is_ok(), "{pattern}");
        }
    }
}
