//! What outside services know of inspected files: VirusTotal and Hybrid Analysis, each when there is a key for it.
//!
//! **Only the SHA-256 of a file leaves, never the file, a part of it or its name.** Asking tells the service, and with
//! VirusTotal its paying customers, that somebody has this file.
//!
//! Questions of a batch go out four at a time, for ten seconds at most. What a service said is remembered for an hour. A
//! service that fails or asks for peace is left alone for a while ([`breaker`]); the inspection goes on without it, and
//! the report says so. No answer is never taken for a good one, and a bad look-up never fails a batch.
//!
//! The services' parts are pure: a question out, an opinion in. What goes over the wire is behind the port [`Web`].

pub mod breaker;
pub mod hybrid_analysis;
mod service;
pub mod virustotal;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::Timestamp;
use shared::classifier::SettingsError;
use shared::config::Document;
use shared::ports::{Clock, Web};
use tracing::warn;

use crate::inspect::{Judgement, Report};
use breaker::Breaker;
use hybrid_analysis::HybridAnalysis;
use service::{Fault, Opinion, Service};
pub use service::{KeyFrom, ReadKey, keys};
use virustotal::VirusTotal;

/// No question goes out after so long with one batch: our choice, a fifth of the deployed function's 50 s.
const BATCH_S_MAX: i64 = 10;
/// How long an answer is good for: our choice. A file that nobody knew may become known.
const ANSWER_S: i64 = 3600;
/// Answers remembered of each service: some hundred bytes each.
const ANSWERS_MAX: usize = 4096;
/// How long a service is left alone whose quota is used up and that does not say for how long.
const QUOTA_S: i64 = breaker::PAUSE_S;
/// How long it is left alone when it does not take the key: somebody has to do something first.
const KEY_REFUSED_S: i64 = 900;

/// The services that are to be asked, with their keys.
#[derive(Default)]
pub struct Services(Vec<Asked>);

impl Services {
    /// From `[inspection.virustotal]` and `[inspection.hybrid_analysis]` of a configuration file. Mistakes are kept by
    /// `document`. Comes before the section `[inspection]` itself.
    pub fn configure(document: &mut Document<'_>, key: &ReadKey<'_>) -> Self {
        let virustotal = section(document, "inspection.virustotal", |settings| {
            VirusTotal::new(settings, key).map(|found| found.map(|s| Box::new(s) as Box<dyn Service>))
        });
        let hybrid_analysis = section(document, "inspection.hybrid_analysis", |settings| {
            HybridAnalysis::new(settings, key).map(|found| found.map(|s| Box::new(s) as Box<dyn Service>))
        });
        Self([virustotal, hybrid_analysis].into_iter().flatten().map(Asked::new).collect())
    }

    /// The names of those that are to be asked.
    pub fn titles(&self) -> Vec<&'static str> {
        self.0.iter().map(|asked| asked.service.title()).collect()
    }

    /// Says in a report that none of them was asked, and why.
    pub fn not_asked(&self, report: &mut Report, why: &str) {
        for asked in &self.0 {
            report.add(asked.service.check(), Judgement::Clean, format!("not asked: {why}"));
        }
    }
}

fn section<T: DeserializeOwned + Serialize + Default>(
    document: &mut Document<'_>,
    path: &str,
    build: impl FnOnce(&T) -> Result<Option<Box<dyn Service>>, SettingsError>,
) -> Option<Box<dyn Service>> {
    let mut service = None;
    let _: T = document.section_with(path, |settings: &T| match build(settings) {
        Ok(built) => {
            service = built;
            Vec::new()
        }
        Err(error) => vec![(error.key.to_owned(), error.why)],
    });
    service
}

/// A service, what it said lately and how it fares.
struct Asked {
    service: Box<dyn Service>,
    breaker: Cell<Breaker>,
    answers: RefCell<Answers>,
}

/// The latest answers; `None` for a file that is not known.
#[derive(Default)]
struct Answers {
    by_hash: HashMap<String, (Timestamp, Option<Opinion>)>,
    /// The oldest first.
    order: VecDeque<String>,
}

impl Answers {
    fn get(&self, sha256: &str, now: Timestamp) -> Option<Option<Opinion>> {
        let (at, opinion) = self.by_hash.get(sha256)?;
        (now < at.plus_seconds(ANSWER_S)).then(|| opinion.clone())
    }

    fn put(&mut self, sha256: &str, now: Timestamp, opinion: Option<Opinion>) {
        if self.by_hash.insert(sha256.to_owned(), (now, opinion)).is_none() {
            self.order.push_back(sha256.to_owned());
            if self.order.len() > ANSWERS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_hash.remove(&oldest);
            }
        }
    }
}

impl Asked {
    fn new(service: Box<dyn Service>) -> Self {
        Self { service, breaker: Cell::default(), answers: RefCell::default() }
    }

    /// The opinion on a file, `None` when the service does not know it; or, in words, why there is neither.
    async fn ask(&self, sha256: &str, web: &impl Web, clock: &impl Clock) -> Result<Option<Opinion>, String> {
        let now = clock.now();
        if let Some(answer) = self.answers.borrow().get(sha256, now) {
            return Ok(answer);
        }
        let mut breaker = self.breaker.get();
        let admitted = breaker.admit(now);
        self.breaker.set(breaker);
        admitted.map_err(|until| format!("not asked: it failed or was asked too often, again from {until}"))?;
        let answer = web.get(&self.service.request(sha256)).await.map_err(Fault::Failed);
        let judged = answer.and_then(|answer| self.service.judge(sha256, &answer));
        let now = clock.now();
        // Others may have asked meanwhile.
        let mut breaker = self.breaker.get();
        let result = match judged {
            Ok(opinion) => {
                breaker.answered();
                self.answers.borrow_mut().put(sha256, now, opinion.clone());
                Ok(opinion)
            }
            Err(fault) => Err(self.failed(fault, &mut breaker, now)),
        };
        self.breaker.set(breaker);
        result
    }

    fn failed(&self, fault: Fault, breaker: &mut Breaker, now: Timestamp) -> String {
        let why = match fault {
            Fault::Failed(why) => {
                breaker.failed(now);
                why
            }
            Fault::Quota { retry_after_s } => {
                breaker.held(now, retry_after_s.unwrap_or(QUOTA_S));
                "the quota of the key is used up".to_owned()
            }
            Fault::KeyRefused { status } => {
                breaker.held(now, KEY_REFUSED_S);
                format!("it does not take the key (status {status})")
            }
        };
        warn!("{} gave no opinion: {why}", self.service.title());
        format!("no opinion: {why}")
    }
}

/// The services, and the way to them.
pub struct Reputation<W> {
    services: Services,
    web: W,
}

impl<W: Web> Reputation<W> {
    /// Asks `services` over `web`.
    pub const fn new(services: Services, web: W) -> Self {
        Self { services, web }
    }

    /// Asks every service about every file and adds to each report what was said, or why nothing was.
    pub async fn look_up(&self, reports: &mut [Report], clock: &impl Clock) {
        let hashes: BTreeSet<&str> = reports.iter().filter_map(|report| report.sha256.as_deref()).collect();
        let questions: Vec<(usize, &str)> =
            (0..self.services.0.len()).flat_map(|service| hashes.iter().map(move |hash| (service, *hash))).collect();
        let said = RefCell::new(HashMap::new());
        let (next, started) = (Cell::new(0), clock.now());
        let worker = async || {
            while let Some((service, sha256)) = questions.get(next.replace(next.get() + 1)) {
                let asked = &self.services.0[*service];
                let answer = if clock.now() > started.plus_seconds(BATCH_S_MAX) {
                    Err("not asked: no time was left for it".to_owned())
                } else {
                    asked.ask(sha256, &self.web, clock).await
                };
                said.borrow_mut().insert((*service, (*sha256).to_owned()), answer);
            }
        };
        tokio::join!(worker(), worker(), worker(), worker());
        let said = said.into_inner();
        for report in reports {
            let sha256 = report.sha256.clone();
            for (service, asked) in self.services.0.iter().enumerate() {
                let check = asked.service.check();
                match sha256.as_ref().and_then(|sha256| said.get(&(service, sha256.clone()))) {
                    Some(Ok(Some(opinion))) => report.add(check, opinion.judgement, opinion.what.clone()),
                    Some(Ok(None)) => report.add(check, Judgement::Clean, "does not know the file".to_owned()),
                    Some(Err(why)) => report.add(check, Judgement::Clean, why.clone()),
                    None => report.add(check, Judgement::Clean, "not asked: there is no hash".to_owned()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::adapters::memory::FixedClock;
    use shared::ports::{WebAnswer, WebRequest};
    use std::collections::BTreeMap;

    /// Answers by the hash at the end of the address; keeps who was asked, and how many at a time.
    #[derive(Default)]
    struct Stub<'c> {
        answers: BTreeMap<String, Result<WebAnswer, String>>,
        asked: RefCell<Vec<String>>,
        now: Cell<usize>,
        most: Cell<usize>,
        /// Moves on by so many seconds with each question.
        clock: Option<(&'c FixedClock, i64)>,
    }

    impl Web for &Stub<'_> {
        async fn get(&self, request: &WebRequest) -> Result<WebAnswer, String> {
            self.asked.borrow_mut().push(request.url.clone());
            self.now.set(self.now.get() + 1);
            self.most.set(self.most.get().max(self.now.get()));
            tokio::task::yield_now().await;
            self.now.set(self.now.get() - 1);
            if let Some((clock, s)) = self.clock {
                clock.set(clock.now().plus_seconds(s));
            }
            let hash = request.url.rsplit('/').next().unwrap_or_default();
            self.answers.get(hash).cloned().unwrap_or_else(|| Ok(status(404, unknown())))
        }
    }

    fn status(status: u16, body: impl Into<Vec<u8>>) -> WebAnswer {
        WebAnswer { status, retry_after: None, body: body.into() }
    }

    /// Both services take it for what it is.
    fn unknown() -> String {
        json!({"error": {"code": "NotFoundError"}, "message": "not found"}).to_string()
    }

    fn services(text: &str) -> Services {
        let mut document = Document::parse("pipeline.toml", text);
        let services = Services::configure(&mut document, &|from| Ok(format!("key-from-{from:?}").replace(' ', "")));
        let _: crate::inspect::Settings = document.section("inspection");
        document.finish().expect("no mistakes");
        services
    }

    fn virustotal() -> Services {
        services("[inspection.virustotal]\nkey_env = \"VT\"\n")
    }

    fn hash(n: usize) -> String {
        format!("{n:064x}")
    }

    fn report(sha256: Option<String>) -> Report {
        Report { sha256, ..Report::default() }
    }

    fn reasons(report: &Report) -> Vec<String> {
        report.reasons.iter().map(|reason| format!("{}: {}", reason.check, reason.what)).collect()
    }

    fn clock() -> FixedClock {
        FixedClock::at(Timestamp::parse("2026-03-01T12:00:00Z").expect("a time"))
    }

    fn pass(clock: &FixedClock, s: i64) {
        clock.set(clock.now().plus_seconds(s));
    }

    #[tokio::test]
    async fn opinions_join_the_report_and_the_worst_counts() {
        let mut stub = Stub::default();
        stub.answers.insert(hash(1), Ok(status(200, virustotal::tests::file_object(&hash(1), 60, 0).to_string())));
        stub.answers.insert(hash(2), Ok(status(200, virustotal::tests::file_object(&hash(2), 0, 0).to_string())));
        let reputation = Reputation::new(virustotal(), &stub);
        let mut reports = [1, 2, 3].map(|n| report(Some(hash(n))));
        reports[1].judgement = Judgement::Suspicious;
        reputation.look_up(&mut reports, &clock()).await;
        let judgements = reports.each_ref().map(|report| report.judgement);
        assert_eq!(
            judgements,
            [Judgement::Malicious, Judgement::Suspicious, Judgement::Clean],
            "a good word changes nothing"
        );
        assert_eq!(
            reasons(&reports[0]),
            ["virustotal: 60 of 68 engines call it malicious, 0 suspicious (virus.eicar/test)"]
        );
        assert_eq!(reasons(&reports[2]), ["virustotal: does not know the file"]);
    }

    #[tokio::test]
    async fn nothing_but_the_hash_is_sent_and_only_with_a_key() {
        let stub = Stub::default();
        let both = "[inspection.virustotal]\nkey_env = \"VT\"\n[inspection.hybrid_analysis]\nkey_env = \"HA\"\n";
        let mut file = Report { name: "secret name.txt".to_owned(), ..report(Some(hash(7))) };
        Reputation::new(services(both), &stub).look_up(std::slice::from_mut(&mut file), &clock()).await;
        let hash = hash(7);
        assert_eq!(
            stub.asked.take(),
            [
                format!("https://www.virustotal.com/api/v3/files/{hash}"),
                format!("https://www.hybrid-analysis.com/api/v2/overview/{hash}")
            ]
        );
        let without_keys = services("[inspection]\nobject_bytes_max = 7\n[inspection.virustotal]\ntimeout_s = 9\n");
        Reputation::new(without_keys, &stub).look_up(std::slice::from_mut(&mut file), &clock()).await;
        assert!(stub.asked.take().is_empty());
    }

    #[tokio::test]
    async fn a_file_is_asked_about_once_an_hour() {
        let (stub, clock) = (Stub::default(), clock());
        let reputation = Reputation::new(virustotal(), &stub);
        let mut same = [1, 1, 2, 1].map(|n| report(Some(hash(n))));
        reputation.look_up(&mut same, &clock).await;
        assert_eq!(stub.asked.take().len(), 2, "a batch asks once about each");
        pass(&clock, ANSWER_S - 1);
        reputation.look_up(&mut [report(Some(hash(1)))], &clock).await;
        assert!(stub.asked.take().is_empty());
        pass(&clock, 1);
        reputation.look_up(&mut [report(Some(hash(1)))], &clock).await;
        assert_eq!(stub.asked.take().len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut answers, now) = (Answers::default(), clock().now());
        for n in 0..ANSWERS_MAX + 10 {
            answers.put(&hash(n), now, None);
            answers.put(&hash(n), now, None);
        }
        assert_eq!((answers.by_hash.len(), answers.order.len()), (ANSWERS_MAX, ANSWERS_MAX));
        assert_eq!((answers.get(&hash(9), now), answers.get(&hash(10), now)), (None, Some(None)));
    }

    #[tokio::test]
    async fn a_batch_asks_four_at_a_time_and_stops_when_its_time_is_over() {
        let clock = clock();
        let stub = Stub { clock: Some((&clock, 1)), ..Stub::default() };
        let mut reports: Vec<Report> = (0..40).map(|n| report(Some(hash(n)))).collect();
        Reputation::new(virustotal(), &stub).look_up(&mut reports, &clock).await;
        assert_eq!(stub.most.get(), 4);
        let asked = stub.asked.take().len();
        assert!((11..=14).contains(&asked), "{asked} questions that take a second each");
        assert_eq!(reasons(&reports[39]), ["virustotal: not asked: no time was left for it"]);
    }

    #[tokio::test]
    async fn a_service_that_fails_is_left_alone_and_the_report_says_so() {
        let (mut stub, clock) = (Stub::default(), clock());
        for n in 0..4 {
            stub.answers.insert(hash(n), Err("not reached: connection refused".to_owned()));
        }
        let reputation = Reputation::new(virustotal(), &stub);
        for n in 0..4 {
            let mut file = [report(Some(hash(n)))];
            reputation.look_up(&mut file, &clock).await;
            let expected = if n < 3 {
                "virustotal: no opinion: not reached: connection refused"
            } else {
                "virustotal: not asked: it failed or was asked too often, again from 2026-03-01T12:01:00Z"
            };
            assert_eq!((reasons(&file[0]), file[0].judgement), (vec![expected.to_owned()], Judgement::Clean));
        }
        assert_eq!(stub.asked.take().len(), 3);
        pass(&clock, 60);
        let mut file = [report(Some(hash(9)))];
        reputation.look_up(&mut file, &clock).await;
        assert_eq!(reasons(&file[0]), ["virustotal: does not know the file"], "a minute later it is tried again");
    }

    #[tokio::test]
    async fn a_used_up_quota_is_respected_for_as_long_as_the_service_says() {
        let (mut stub, clock) = (Stub::default(), clock());
        let limited = WebAnswer { retry_after: Some("17".to_owned()), ..status(429, "") };
        stub.answers.insert(hash(1), Ok(limited));
        stub.answers.insert(hash(2), Ok(status(401, "")));
        let reputation = Reputation::new(virustotal(), &stub);
        let look_up = async |n: usize| {
            let mut file = [report(Some(hash(n)))];
            reputation.look_up(&mut file, &clock).await;
            reasons(&file[0]).remove(0)
        };
        assert_eq!(look_up(1).await, "virustotal: no opinion: the quota of the key is used up");
        pass(&clock, 16);
        assert!(look_up(3).await.ends_with("again from 2026-03-01T12:00:17Z"));
        pass(&clock, 1);
        assert_eq!(look_up(2).await, "virustotal: no opinion: it does not take the key (status 401)");
        assert!(look_up(3).await.ends_with("again from 2026-03-01T12:15:17Z"));
        assert_eq!(stub.asked.take().len(), 2);
    }

    #[tokio::test]
    async fn a_file_without_a_hash_is_not_asked_about() {
        let stub = Stub::default();
        let mut cut = [report(None)];
        Reputation::new(virustotal(), &stub).look_up(&mut cut, &clock()).await;
        assert_eq!(reasons(&cut[0]), ["virustotal: not asked: there is no hash"]);
    }

    #[test]
    fn mistakes_have_their_lines_and_keys_are_not_shown() {
        let text = "[inspection]\nhash_list = []\n\n[inspection.virustotal]\nkey = \"secret\"\n\n\
                    [inspection.hybrid_analysis]\nkey_env = \"HA\"\nbase_url = \"http://example.com\"\n\n[inspection.other]\n";
        let mut document = Document::parse("pipeline.toml", text);
        Services::configure(&mut document, &|_| Ok("secret".to_owned()));
        let _: crate::inspect::Settings = document.section("inspection");
        let error = document.finish().expect_err("mistakes");
        let seen: Vec<_> = error.mistakes.iter().map(|m| (m.line, m.key.as_str())).collect();
        let expected = [
            (2, "inspection.hash_list"),
            (5, "inspection.virustotal.key"),
            (9, "inspection.hybrid_analysis.base_url"),
            (11, "inspection.other"),
        ];
        assert_eq!(seen, expected, "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
