//! Web scanner at work.
//!
//! **What it detects.** One address sends a thousand requests to web servers within five minutes, or calls itself a known
//! scanner, or asks for thirty different pages that do not exist within five minutes. Also a CloudWatch alarm that is
//! named for it. Each is reported once for an address and window; the addresses of one IPv6 /64 are one, as a single
//! host has them all.
//!
//! **Why it matters.** Scanning comes before the attack, and shows what the attacker now knows about the server.
//!
//! **False positives.** Proxies and offices behind one address, load tests, search engines on a site that lost its pages,
//! your own scanner: name them in `sources_exempt`, or raise the thresholds. Anyone can send any user agent.
//!
//! **Response.** `ec2_http_block` closes the web ports to the world where a group opened them and notes the address for
//! the web application firewall.
//!
//! **References.** <https://attack.mitre.org/techniques/T1595/002/>,
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html>

use std::net::IpAddr;

use ipnet::IpNet;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use shared::classifier::{Classifier, Evidence, FailedCalls, Malformed, Meta, Pattern, SettingsError};
use shared::event::Event;
use shared::finding::Severity;
use shared::observation::{Known, MAX_DISTINCT_ENTRIES, MAX_RATE, Observations};
use shared::ports::Files;

use crate::alarm_state::{self, AlarmState};
use crate::source_network;

/// What scanners call themselves; the format is in the file.
const USER_AGENTS: &str = include_str!("../../data/scanner-user-agents.txt");

/// See the module.
pub struct WebScannerDetected {
    settings: Settings,
    exempt: Vec<IpNet>,
    user_agents: Vec<Finder<'static>>,
}

/// The `[classifiers.web_scanner_detected]` section.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many requests of one address are too many. Default 1,000, as the system before this one had it.
    pub requests_min: u32,
    /// How many different missing pages are too many. Default 30: our choice; broken links of one visit are fewer than ten
    /// in the traffic we measured, and a scanner's word list has thousands.
    pub missing_paths_min: u32,
    /// Within how many seconds, both. Default 300, as the system before this one had it.
    pub window_s: u32,
    /// After how many seconds of quiet a scanner that names itself is reported again. Default 3,600: our choice.
    pub quiet_s: u32,
    /// Addresses and ranges that are left out. Default none.
    pub sources_exempt: Vec<String>,
    /// Further parts of user agents, in lower case. Default none.
    pub user_agents: Vec<String>,
    /// Parts of the names of CloudWatch alarms that mean this, in lower case. Default as below.
    pub alarm_words: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            requests_min: 1000,
            missing_paths_min: 30,
            window_s: 300,
            quiet_s: 3600,
            sources_exempt: Vec::new(),
            user_agents: Vec::new(),
            alarm_words: ["web-scan", "webscan", "web_scan", "web-scanner", "http-flood"].map(str::to_owned).to_vec(),
        }
    }
}

impl Classifier for WebScannerDetected {
    const META: Meta = Meta {
        id: "web_scanner_detected",
        title: "Web scanner at work",
        severity: Severity::High,
        techniques: &["T1595.002", "T1595.003"],
        patterns: &[
            Pattern::Intake { source: "web-access-log", name: "Request" },
            Pattern::Notification { source: "aws.cloudwatch", detail_type: "CloudWatch Alarm State Change" },
        ],
        failed_calls: FailedCalls::Ignored,
        responses: &["ec2_http_block"],
        references: &[
            "https://attack.mitre.org/techniques/T1595/002/",
            "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html",
        ],
    };
    type Settings = Settings;

    fn new(settings: Settings, _files: &dyn Files) -> Result<Self, SettingsError> {
        if !(2..=MAX_RATE).contains(&settings.requests_min) {
            return Err(SettingsError::new("requests_min", format!("must be from 2 to {MAX_RATE}")));
        }
        // A window keeps at most so many entries; a higher threshold could never be reached.
        if settings.missing_paths_min < 2 || settings.missing_paths_min as usize > MAX_DISTINCT_ENTRIES {
            return Err(SettingsError::new("missing_paths_min", format!("must be from 2 to {MAX_DISTINCT_ENTRIES}")));
        }
        if settings.window_s == 0 {
            return Err(SettingsError::new("window_s", "must be at least 1"));
        }
        let mut exempt = Vec::new();
        for text in &settings.sources_exempt {
            let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            exempt.push(net.ok_or_else(|| {
                SettingsError::new("sources_exempt", format!("{text:?} is neither an address nor a range"))
            })?);
        }
        let listed = USER_AGENTS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let user_agents: Vec<String> =
            listed.map(str::to_owned).chain(settings.user_agents.iter().map(|ua| ua.trim().to_lowercase())).collect();
        if user_agents.iter().any(String::is_empty) {
            return Err(SettingsError::new("user_agents", "an empty entry would match every request"));
        }
        if settings.alarm_words.iter().any(|w| w.trim().is_empty()) {
            return Err(SettingsError::new("alarm_words", "an empty entry would match every alarm"));
        }
        let user_agents = user_agents.iter().map(|ua| Finder::new(ua).into_owned()).collect();
        Ok(Self { settings, exempt, user_agents })
    }

    fn wants(&self, event: &Event<'_>) -> bool {
        is_alarm(event)
            || (!event.source_ip.is_empty()
                && (self.exempt.is_empty()
                    || event
                        .source_ip
                        .parse::<IpAddr>()
                        .map_or(true, |address| !self.exempt.iter().any(|net| net.contains(&address)))))
    }

    fn observe(&self, event: &Event<'_>) -> Result<Observations, Malformed> {
        if is_alarm(event) {
            return Ok(Observations::none());
        }
        let Settings { requests_min, window_s, quiet_s, .. } = self.settings;
        let source = [&*event.account, &*source_network::of(&event.source_ip)].join("/");
        let mut observations = Observations::none().rate("requests", source.clone(), requests_min, window_s);
        if let Some(tool) = self.tool(&event.user_agent) {
            observations = observations.see("tool", format!("{source}/{tool}"), quiet_s);
        }
        let detail = event.detail()?;
        if detail["status"] == 404
            && let Some(path) = detail["path"].as_str()
        {
            // What stands behind the question mark does not make another page.
            let page = path.split('?').next().unwrap_or_default();
            observations = observations.distinct("missing", source, page, window_s);
        }
        Ok(observations)
    }

    fn classify(&self, event: &Event<'_>, known: &Known) -> Result<Option<Evidence>, Malformed> {
        if is_alarm(event) {
            return self.alarm(event);
        }
        let mut reasons = Vec::new();
        let mut evidence = Evidence::about(event.source_ip.clone());
        if let Some(tool) = self.tool(&event.user_agent)
            && known.seen("tool").is_new()
        {
            reasons.push(format!("calls itself {tool}"));
            evidence = evidence.fact("user_agent", &*event.user_agent);
        }
        if known.count("requests").reaches(u64::from(self.settings.requests_min)) {
            reasons.push(format!("{} requests", self.settings.requests_min));
            evidence = evidence.fact("requests_min", self.settings.requests_min);
        }
        let missing = known.count("missing");
        if missing.reaches(u64::from(self.settings.missing_paths_min)) {
            reasons.push(format!("{} missing pages", missing.now));
            evidence = evidence.fact("missing_paths", missing.values);
        }
        if reasons.is_empty() {
            return Ok(None);
        }
        let (source, why) = (event.source_ip.chars().take(45).collect::<String>(), reasons.join(", "));
        let path = event.detail()?["path"].as_str().unwrap_or_default();
        Ok(Some(
            evidence
                .titled(format!("Web scanner at work from {source}: {why}"))
                .fact("window_s", self.settings.window_s)
                .fact("path", path),
        ))
    }
}

impl WebScannerDetected {
    /// The part of the user agent that gives a scanner away.
    fn tool(&self, user_agent: &str) -> Option<&str> {
        // Most requests come from browsers, and no scanner of the list is this honest and a browser too.
        if user_agent.len() < 4 {
            return None;
        }
        let lower = user_agent.to_ascii_lowercase();
        let found = self.user_agents.iter().find(|finder| finder.find(lower.as_bytes()).is_some())?;
        std::str::from_utf8(found.needle()).ok().map(|tool| tool.trim_matches(['/', '(', ')']))
    }

    /// An alarm that is named for it, when it goes off.
    fn alarm(&self, event: &Event<'_>) -> Result<Option<Evidence>, Malformed> {
        let AlarmState { name, state, before, reason, .. } = AlarmState::of(event)?;
        let lower = name.to_lowercase();
        let is_ours = self.settings.alarm_words.iter().any(|word| lower.contains(&word.to_lowercase()));
        if !is_ours || state != "ALARM" || before == "ALARM" {
            return Ok(None);
        }
        let shown: String = name.chars().take(60).collect();
        let evidence = Evidence::about(name).titled(format!("Web scanner at work: alarm {shown}"));
        Ok(Some(evidence.fact("alarm", name).fact("reason", reason)))
    }
}

fn is_alarm(event: &Event<'_>) -> bool {
    event.source == alarm_state::SOURCE
}
