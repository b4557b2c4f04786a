//! Objects as files: fetched when asked for, asked about again, and used when they have changed.

use shared::adapters::memory::{MemoryState, NoFiles};
use shared::config::Document;

use super::*;

const LIST: &str = "s3://lists/bad.txt";
const CONFIG: &str = "[classifiers.threat_intel_ip]\nlists = [\"s3://lists/bad.txt\"]\n";
const CALL: &str = r#"{"eventVersion":"1.11","eventTime":"2026-03-02T10:00:00Z","eventSource":"kms.amazonaws.com","eventName":"ListKeys","eventID":"ID","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.9","recipientAccountId":"123456789012","userIdentity":{"type":"IAMUser","userName":"alice","accountId":"123456789012","arn":"arn:aws:iam::123456789012:user/alice"}}"#;

/// Objects by name; the entity tag is the content. Keeps what was asked.
#[derive(Default)]
struct Bucket {
    objects: RefCell<BTreeMap<String, String>>,
    asked: RefCell<Vec<String>>,
    is_down: Cell<bool>,
}

impl Bucket {
    fn put(&self, name: &str, content: &str) {
        self.objects.borrow_mut().insert(name.to_owned(), content.to_owned());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

struct Object(Option<String>, String);

impl ObjectBody for Object {
    fn content_type(&self) -> Option<&str> {
        None
    }

    fn etag(&self) -> Option<&str> {
        Some(&self.1)
    }

    async fn next(&mut self) -> PortResult<Option<Vec<u8>>> {
        Ok(self.0.take().map(String::into_bytes))
    }
}

impl Objects for &Bucket {
    type Body = Object;

    async fn open(&self, object: &ObjectRef<'_>) -> PortResult<Opening<Object>> {
        if self.is_down.get() {
            return Err(PortError::Retryable { what: "S3 is down".to_owned(), source: None });
        }
        let name = format!("s3://{}/{}", object.bucket, object.key);
        let content = self.objects.borrow().get(&name).cloned();
        let answer = match content {
            None => Opening::Gone,
            Some(content) if object.unless_etag == Some(&*content) => Opening::Unchanged,
            Some(content) => Opening::Opened(Object(Some(content.clone()), content)),
        };
        let told = if matches!(answer, Opening::Opened(_)) { "sent" } else { "not sent" };
        self.asked.borrow_mut().push(format!("{name} {told}"));
        Ok(answer)
    }
}

#[derive(Default)]
struct Hands(Cell<i64>);

impl Clock for &Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.get() * 1000)
    }
}

/// Counting is enough.
struct Nowhere;

impl Outbox for Nowhere {
    async fn send(&self, _bodies: &[String]) -> PortResult<()> {
        Ok(())
    }
}

fn configured(files: &dyn Files) -> Result<(Engine, Option<Inspector>), Error> {
    let mut document = Document::parse("pipeline.toml", CONFIG);
    let engine = Engine::configure(&mut document, files, &[]);
    let inspector = Inspector::configure(&mut document, files);
    document.finish()?;
    let engine = engine.map_err(|refused| format!("{:?}", refused.settings))?;
    Ok((engine, inspector))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn call(id: &str) -> Message {
    Message { message_id: id.to_owned(), body: CALL.replace("\"ID\"", &format!("\"{id}\"")), receive_count: 1 }
}

#[test]
fn a_list_in_a_bucket_is_used_and_read_again_when_it_has_changed() {
    let (bucket, hands) = (Bucket::default(), Hands::default());
    bucket.put(LIST, "198.51.100.0/24 # others\n");
    let files = ObjectFiles::new(&bucket, NoFiles);
    let (engine, inspector) = run(files.make(configured)).expect("made");
    assert_eq!(bucket.asked(), ["s3://lists/bad.txt sent"]);
    let state = MemoryState::default();
    let handler = ClassifierHandler::new(engine, &state, Nowhere).inspecting(inspector);
    let renewing = Renewing::new(handler, files, Box::new(configured), &hands);
    let found = |at_s: i64, id: &str| {
        hands.0.set(at_s);
        let before = renewing.handler().counts().findings;
        assert_eq!(run(renewing.handle(&[call(id)])), BatchResult::default());
        renewing.handler().counts().findings - before
    };

    assert_eq!(found(0, "e-1"), 0, "the address is on no list");
    bucket.put(LIST, "203.0.113.0/24\n");
    assert_eq!(found(RENEW_S - 1, "e-2"), 0, "it is not asked about yet");
    assert!(bucket.asked().is_empty());
    assert_eq!(found(RENEW_S, "e-3"), 1, "the new list");
    assert_eq!(bucket.asked(), ["s3://lists/bad.txt sent"]);
    assert_eq!(found(2 * RENEW_S, "e-4"), 1);
    assert_eq!(bucket.asked(), ["s3://lists/bad.txt not sent"]);

    bucket.put(LIST, "no address\n");
    assert_eq!(found(3 * RENEW_S, "e-5"), 1, "what cannot be used changes nothing");
    bucket.is_down.set(true);
    assert_eq!(found(4 * RENEW_S, "e-6"), 1, "nor does what cannot be fetched");
    bucket.is_down.set(false);
    bucket.put(LIST, "");
    assert_eq!(found(5 * RENEW_S, "e-7"), 0, "and the next good one counts again");
    assert_eq!(renewing.handler().counts().records_in, 7, "counts go on");
}

#[test]
fn what_names_no_object_asks_for_none() {
    let bucket = Bucket::default();
    let files = ObjectFiles::new(&bucket, NoFiles);
    run(files.make(|_| Ok(()))).expect("made");
    assert!(!files.names_any() && bucket.asked().is_empty());
    assert_eq!(run(files.make(|files| files.read("a.txt").map_err(Into::into))).unwrap_err().to_string(), {
        NoFiles.read("a.txt").unwrap_err()
    });
}

#[test]
fn objects_are_fetched_as_they_are_asked_for_and_each_once() {
    let bucket = Bucket::default();
    bucket.put("s3://a/list", "s3://b/1 s3://b/2");
    bucket.put("s3://b/1", "one");
    bucket.put("s3://b/2", "two");
    let files = ObjectFiles::new(&bucket, NoFiles);
    let read = |files: &dyn Files| -> Result<String, Error> {
        let mut all = String::new();
        for name in String::from_utf8(files.read(&files.list("s3://a/list")?[0])?)?.split(' ') {
            all += &String::from_utf8(files.read(name)?)?;
        }
        Ok(all)
    };
    assert_eq!(run(files.make(read)).expect("made"), "onetwo");
    assert_eq!(bucket.asked(), ["s3://a/list sent", "s3://b/1 sent", "s3://b/2 sent"]);
    assert_eq!(run(files.remake(read)).expect("asked"), None);
    bucket.put("s3://b/2", "TWO");
    bucket.asked();
    assert_eq!(run(files.remake(read)).expect("asked"), Some("oneTWO".to_owned()));
    assert_eq!(
        bucket.asked(),
        ["s3://a/list not sent", "s3://b/1 not sent", "s3://b/2 sent", "s3://a/list sent", "s3://b/1 sent"]
    );
}

#[test]
fn what_cannot_be_fetched_is_named() {
    let bucket = Bucket::default();
    bucket.put("s3://a/large", &"x".repeat(BYTES_MAX + 1));
    for (name, why) in [
        ("s3://a/none", "s3://a/none: there is no such object"),
        ("s3://a/large", "s3://a/large: the objects that settings name have more than 8 MiB together"),
        ("s3://a", "s3://a: must be s3://BUCKET/KEY"),
        ("s3:///k", "s3:///k: must be s3://BUCKET/KEY"),
        ("s3://a/", "s3://a/: must be s3://BUCKET/KEY"),
    ] {
        let files = ObjectFiles::new(&bucket, NoFiles);
        let error = run(files.make(|files| files.read(name).map_err(Into::into))).expect_err(name);
        assert_eq!(error.to_string(), why);
    }
    bucket.put("s3://a/half", &"x".repeat(BYTES_MAX / 2));
    bucket.put("s3://a/more", &"x".repeat(BYTES_MAX / 2 + 1));
    let both = |files: &dyn Files| -> Result<(), Error> {
        ["s3://a/half", "s3://a/more"].iter().try_for_each(|name| files.read(name).map(drop))?;
        Ok(())
    };
    let error = run(ObjectFiles::new(&bucket, NoFiles).make(both)).expect_err("together");
    assert!(error.to_string().contains("s3://a/more"), "{error}");
    let many = |files: &dyn Files| -> Result<(), Error> {
        (0..=OBJECTS_MAX).try_for_each(|i| files.read(&format!("s3://m/{i}")).map(drop))?;
        Ok(())
    };
    (0..=OBJECTS_MAX).for_each(|i| bucket.put(&format!("s3://m/{i}"), ""));
    let error = run(ObjectFiles::new(&bucket, NoFiles).make(many)).expect_err("too many");
    assert!(error.to_string().contains("more than 32 objects"), "{error}");
}
