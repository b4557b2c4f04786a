//! What exemption patterns may say, and whom they name.

use shared::text::matches_glob;

/// Whether a pattern (in lower case) names this principal: as it is written, by its bare name, or by account and name
/// where either side lacks the path.
pub(crate) fn names(pattern: &str, principal: &str) -> bool {
    let principal = principal.to_ascii_lowercase();
    let last = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    if !pattern.starts_with("arn:") {
        // Whoever takes a role chooses the name of the session. For its role there is the role's own ARN, see actors().
        return !is_session(&principal)
            && (matches_glob(pattern, &principal) || matches_glob(pattern, &last(&principal)));
    }
    if matches_glob(pattern, &principal) {
        return true;
    }
    ["user", "role"].iter().any(|kind| {
        let separator = format!(":{kind}/");
        match (pattern.split_once(&separator), principal.split_once(&separator)) {
            (Some((pattern_head, pattern_name)), Some((head, name))) => {
                matches_glob(pattern_head, head) && matches_glob(&last(pattern_name), &last(name))
            }
            _ => false,
        }
    })
}

/// Whether a principal (in lower case) ends in a name that its caller has chosen: the ARN of a session or a federated
/// user, or a principal id with the name of a session.
fn is_session(principal: &str) -> bool {
    if !principal.starts_with("arn:") {
        return principal.contains(':');
    }
    let resource = principal.splitn(6, ':').nth(5).unwrap_or_default();
    resource.starts_with("assumed-role/") || resource.starts_with("federated-user/")
}

/// Whether an exemption pattern can be used.
///
/// A user or role pattern must end in a name: what the pipeline sees of a session or a changed user has no path, so
/// `user/ops/*` would exempt everybody or, worse, nobody.
///
/// # Errors
/// What is wrong with it.
pub fn check_pattern(pattern: &str) -> Result<(), String> {
    let shown = shared::text::one_line(pattern, 200);
    if pattern.trim().is_empty() || pattern.trim() != pattern {
        return Err(format!("{shown:?} is empty or has spaces around it"));
    }
    if pattern.to_ascii_lowercase().starts_with("arn:") {
        shared::arn::check_pattern(pattern)?;
    }
    for kind in [":user/", ":role/"] {
        if let Some((_, name)) = pattern.split_once(kind)
            && name.len() > 1
            && name.ends_with("/*")
        {
            return Err(format!(
                "{shown:?} exempts by path, but events do not carry paths; name the users or roles, such as {kind}break-glass-*"
            ));
        }
    }
    Ok(())
}

/// As [`check_pattern`], for patterns of users and roles.
///
/// # Errors
/// What is wrong with it.
pub fn check_principal_pattern(pattern: &str) -> Result<(), String> {
    check_pattern(pattern)?;
    // IAM's names are of letters, digits and `+=,.@_-`, its paths of printable ASCII (API reference, `CreateRole`).
    if pattern.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let shown = shared::text::one_line(pattern, 200);
    Err(format!("{shown:?} names no user or role: names in IAM have no spaces and none but ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_cannot_work_are_refused() {
        for (pattern, good) in [
            ("alice", true),
            ("arn:aws:iam::*:user/alice*", true),
            ("arn:aws:iam::123456789012:*", true),
            ("arn:aws:iam::*:user/*", true),
            ("arn:aws:iam::*:user/ops/*", false),
            ("arn:aws:iam", false),
            ("arn:aws:iam:123:role/x*", false),
            ("ARN:aws:iam:123456789012:role/x", false),
            ("", false),
            (" alice", false),
        ] {
            assert_eq!(check_pattern(pattern).is_ok(), good, "{pattern}");
            assert_eq!(check_principal_pattern(pattern).is_ok(), good, "{pattern}");
        }
        for pattern in ["deploy role", "arn:aws:iam::*:role/deploy role", "dépl"] {
            assert!(check_principal_pattern(pattern).is_err() && check_pattern(pattern).is_ok(), "{pattern}");
        }
    }
}
