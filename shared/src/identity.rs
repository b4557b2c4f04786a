//! Who made a call, and by what name they are known and counted.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// The root user of an account.
    Root,
    /// A user with a name in IAM.
    IamUser,
    /// A session of a role.
    RoleSession,
    /// A session of a role that IAM Identity Center made for a permission set (`AWSReservedSSO_…`), or one of its users.
    SsoUser,
    /// A session of `GetFederationToken`.
    FederatedUser,
    /// Somebody whom an identity provider vouches for, at the moment of taking a role (SAML, web identity).
    ExternalUser,
    /// An AWS service, also by its service-linked role.
    Service,
    /// Another account, of which no more is told.
    Account,
    /// None of these, or the record does not say.
    Unknown,
}

impl PrincipalKind {
    /// The words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root user",
            Self::IamUser => "IAM user",
            Self::RoleSession => "role session",
            Self::SsoUser => "Identity Center user",
            Self::FederatedUser => "federated user",
            Self::ExternalUser => "user of an identity provider",
            Self::Service => "AWS service",
            Self::Account => "other account",
            Self::Unknown => "unknown caller",
        }
    }
}

/// The caller, with what role sessions and federated users add. Empty strings are absent fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// `IAMUser`, `Root`, `AssumedRole`, `FederatedUser`, `SAMLUser`, `WebIdentityUser`, `AWSService`, `AWSAccount`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// ARN of the caller; missing on service events.
    pub arn: String,
    /// Account of the caller, which is not always the account of the event.
    pub account: String,
    /// `AIDA…`, `AROA…:session`.
    pub principal_id: String,
    /// Only IAM users and some failed logins have one.
    pub user_name: String,
    /// The key the call was signed with; `ASIA…` for sessions.
    pub access_key_id: String,
    /// The AWS service that acted for the principal.
    pub invoked_by: String,
    /// ARN of the role or user a session came from.
    pub issuer_arn: String,
    /// Name of that role or user.
    pub issuer_name: String,
    /// Name of the role session, the part behind the colon of `principal_id`.
    pub session_name: String,
    /// Whether the session was made with MFA; absent when the record does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<bool>,
}

impl Identity {
    /// Who this is, for people and as a state key: the ARN, else the best name there is, else `unknown`.
    pub fn principal(&self) -> &str {
        [&self.arn, &self.user_name, &self.principal_id, &self.invoked_by, &self.account]
            .into_iter()
            .find(|s| !s.is_empty())
            .map_or("unknown", String::as_str)
    }

    /// The root user of an account.
    pub fn is_root(&self) -> bool {
        self.kind == "Root"
    }

    /// What kind of caller this is.
    pub fn principal_kind(&self) -> PrincipalKind {
        match self.kind.as_str() {
            "Root" => PrincipalKind::Root,
            "IAMUser" => PrincipalKind::IamUser,
            // Issuer ARNs carry the path (`role/aws-reserved/sso.amazonaws.com/…`), session ARNs only the name.
            "AssumedRole" | "Role" if self.role_has("aws-service-role/", "AWSServiceRoleFor") => PrincipalKind::Service,
            "AssumedRole" | "Role" if self.role_has("aws-reserved/sso.", "AWSReservedSSO_") => PrincipalKind::SsoUser,
            "AssumedRole" | "Role" => PrincipalKind::RoleSession,
            "IdentityCenterUser" => PrincipalKind::SsoUser,
            "FederatedUser" => PrincipalKind::FederatedUser,
            "SAMLUser" | "WebIdentityUser" | "Directory" => PrincipalKind::ExternalUser,
            "AWSService" => PrincipalKind::Service,
            "AWSAccount" => PrincipalKind::Account,
            _ => PrincipalKind::Unknown,
        }
    }

    /// Only AWS can put a role under paths that begin as its own do, and anybody can give a role a name or any other path
    /// (`/x/aws-service-role/`, even with colons): the name decides where no path is told.
    fn role_has(&self, path: &str, name: &str) -> bool {
        if !self.issuer_arn.is_empty() {
            // Nearly no role has it anywhere.
            if !self.issuer_arn.contains(path) {
                return false;
            }
            let resource = self.issuer_arn.splitn(6, ':').nth(5).unwrap_or_default();
            return resource.strip_prefix("role/").is_some_and(|role| role.starts_with(path));
        }
        self.issuer_name.starts_with(name)
            || self.arn.split_once(":assumed-role/").is_some_and(|(_, role)| role.starts_with(name))
    }

    /// A name for state that stays the same for the same caller and differs between callers: a role session by the role
    /// it came from and the session's name, whoever's key signs; a user of an identity provider by provider and name;
    /// everybody else by ARN, else by the best name there is with the account before it.
    pub fn principal_key(&self) -> Cow<'_, str> {
        match self.principal_kind() {
            PrincipalKind::RoleSession | PrincipalKind::SsoUser | PrincipalKind::Service
                if !self.issuer_arn.is_empty() && !self.session_name.is_empty() =>
            {
                Cow::Owned([&*self.issuer_arn, &*self.session_name].join("/"))
            }
            _ if !self.arn.is_empty() => Cow::Borrowed(&self.arn),
            PrincipalKind::ExternalUser if !self.user_name.is_empty() => {
                // `principal_id` is `provider:subject`; the subject may differ from sign-in to sign-in.
                let provider = self.principal_id.split(':').next().unwrap_or_default();
                Cow::Owned([&*self.account, provider, &self.user_name].join("/"))
            }
            _ => Cow::Owned([&*self.account, self.principal()].join("/")),
        }
    }

    /// As [`Identity::principal_key`], with a user of Identity Center as one person in all accounts and permission sets:
    /// Identity Center names the sessions, nobody else can.
    pub fn person_key(&self) -> Cow<'_, str> {
        match self.principal_kind() {
            PrincipalKind::SsoUser if !self.session_name.is_empty() => {
                Cow::Owned(["identity-center", &self.session_name].join("/"))
            }
            _ => self.principal_key(),
        }
    }

    /// Who is counted for what is done again and again: as [`Identity::person_key`], with all sessions of any other role, and
    /// all federated users of one user, as one. Whoever takes a role chooses the name of the session, so twenty names would
    /// make twenty callers of one. A role that the record does not name is taken from the session's ARN or id.
    pub fn actor_key(&self) -> Cow<'_, str> {
        match self.principal_kind() {
            PrincipalKind::RoleSession | PrincipalKind::FederatedUser if !self.issuer_arn.is_empty() => {
                Cow::Borrowed(&self.issuer_arn)
            }
            PrincipalKind::RoleSession if let Some(role) = self.role_of_session() => Cow::Borrowed(role),
            // The id of a session is `AROA…:session`.
            PrincipalKind::Account if let Some((role, _)) = self.principal_id.split_once(':') => {
                Cow::Owned([&*self.account, role].join("/"))
            }
            _ => self.person_key(),
        }
    }

    /// The ARN of a role's session without the name of the session.
    fn role_of_session(&self) -> Option<&str> {
        let (_, session) = self.arn.split_once(":assumed-role/")?;
        let (_, name) = session.split_once('/')?;
        self.arn.get(..self.arn.len() - name.len() - 1)
    }

    /// As [`Identity::principal_key`], with all sessions of one role as one: for habits, because the names of sessions are
    /// often made up each time.
    pub fn habit_key(&self) -> Cow<'_, str> {
        match self.principal_kind() {
            PrincipalKind::RoleSession | PrincipalKind::SsoUser if !self.issuer_arn.is_empty() => {
                Cow::Borrowed(&self.issuer_arn)
            }
            _ => self.principal_key(),
        }
    }
}
