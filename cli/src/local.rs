//! The four components on this machine: the same handlers as in Lambda, over queues and stores of the caller's choice.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use aws_classifier::handler::ClassifierHandler;
use aws_logger::{FileLog, LogSink, Logger, WriteLog};
use aws_notifier::{Channel, Console, FileFolder, Notifier};
use aws_responder::{NoCloud, Responder};
use shared::adapters::disk::SystemClock;
use shared::adapters::embedded::{Embedded, EmbeddedQueue};
use shared::adapters::memory::{MemoryIncidents, MemoryLedger, MemoryQueue, MemoryState};
use shared::ports::{Incidents, Ledger, Message, Queue, QueueSettings, State};

use crate::chain::{self, Four, Queues};
use crate::config::Config;
use crate::data::{DataFolder, SoleLedger};
use crate::failure::Failure;
use crate::{interrupt, output};

/// The handlers over their ports.
type Handlers<Q, S, J, I, W> = Four<
    ClassifierHandler<S, Q>,
    Responder<J, Q, Q, SystemClock, NoCloud>,
    Notifier<J, Q, SystemClock>,
    Logger<I, J, W, SystemClock>,
>;

/// The chain: queues `Q`, state `S`, ledger `J`, incidents `I` and log `W` with the handlers over them.
pub struct Local<Q, S, J, I, W> {
    queues: Queues<Q>,
    handlers: Handlers<Q, S, J, I, W>,
}

/// Everything in a data folder.
pub type InFolder = Local<EmbeddedQueue, Embedded, SoleLedger<Embedded>, Embedded, FileLog>;
/// Nothing outlives the process.
pub type InMemory = Local<Rc<MemoryQueue>, MemoryState, Rc<MemoryLedger>, Rc<MemoryIncidents>, WriteLog<io::Sink>>;

/// The stores that handlers share.
struct Stores<S, J, I, W> {
    state: S,
    ledger: J,
    incidents: I,
    log: W,
}

/// The chain over a data folder. Alerts and the log go into the folder too.
///
/// # Errors
/// When they cannot be made there.
pub fn in_folder(config: Config, data: DataFolder) -> Result<InFolder, Failure> {
    let mut channels: Vec<Box<dyn Channel>> = Vec::new();
    if config.notifier.channels.console.enabled {
        channels.push(Box::new(Console::new(anstream::stderr())));
    }
    if config.notifier.channels.file.enabled {
        let folder = data.path.join(&config.notifier.channels.file.folder);
        let opened = FileFolder::open(&folder);
        channels.push(Box::new(opened.map_err(|e| Failure::machine(format!("make {}", output::path(&folder)), e))?));
    }
    let log = data.path.join(&config.logger.file);
    let log = FileLog::open(&log).map_err(|e| Failure::machine(format!("open {}", output::path(&log)), e))?;
    let stores =
        Stores { state: data.store.clone(), ledger: SoleLedger(data.store.clone()), incidents: data.store, log };
    assemble(config, data.queues, channels, stores)
}

/// The chain in memory, with the alerts as text and the incidents to look at afterwards.
///
/// # Errors
/// When a setting of the responder cannot be used.
pub fn in_memory(config: Config) -> Result<(InMemory, Alerts, Rc<MemoryIncidents>), Failure> {
    let queue = || Rc::new(MemoryQueue::new(QueueSettings::default()));
    let queues = Four { classifier: queue(), responder: queue(), notifier: queue(), logger: queue() };
    let alerts = Alerts::default();
    let incidents = Rc::new(MemoryIncidents::default());
    let stores = Stores {
        state: MemoryState::default(),
        ledger: Rc::new(MemoryLedger::default()),
        incidents: Rc::clone(&incidents),
        log: WriteLog::new(io::sink()),
    };
    let channels: Vec<Box<dyn Channel>> = vec![Box::new(Console::new(alerts.clone()))];
    Ok((assemble(config, queues, channels, stores)?, alerts, incidents))
}

fn assemble<Q, S, J, I, W>(
    config: Config,
    queues: Queues<Q>,
    channels: Vec<Box<dyn Channel>>,
    stores: Stores<S, J, I, W>,
) -> Result<Local<Q, S, J, I, W>, Failure>
where
    Q: Queue + Clone,
    S: State,
    J: Ledger + Clone,
    I: Incidents,
    W: LogSink,
{
    let Stores { state, ledger, incidents, log } = stores;
    let (notifier, logger) = (queues.notifier.clone(), queues.logger.clone());
    let cloud = NoCloud("this program has no AWS account");
    let responder = Responder::new(&config.responder, ledger.clone(), notifier, logger, SystemClock, cloud)
        .map_err(|error| Failure::Usage(format!("the responder's settings cannot be used: {error}")))?;
    let handlers = Four {
        classifier: ClassifierHandler::new(config.engine, state, queues.responder.clone()),
        responder,
        notifier: Notifier::new(config.notifier.notifier, channels, ledger.clone(), queues.logger.clone(), SystemClock),
        logger: Logger::new(config.logger.format, incidents, ledger, log, SystemClock),
    };
    Ok(Local { queues, handlers })
}

impl<Q: Queue, S: State, J: Ledger, I: Incidents, W: LogSink> Local<Q, S, J, I, W> {
    /// The classifier.
    pub const fn classifier(&self) -> &ClassifierHandler<S, Q> {
        &self.handlers.classifier
    }

    /// The queues.
    pub const fn queues(&self) -> &Queues<Q> {
        &self.queues
    }

    /// Handles messages until all queues are empty, or until Ctrl-C. `seen` gets what the logger has handled.
    ///
    /// # Errors
    /// When a queue does not work.
    pub fn drain(&self, seen: &mut dyn FnMut(&Message)) -> Result<(), Failure> {
        Ok(chain::block_on(chain::drain(&self.queues, &self.handlers, &SystemClock, &interrupt::asked, seen))??)
    }

    /// How many messages could not be handled, over all queues.
    ///
    /// # Errors
    /// When a queue does not work.
    pub fn dead_letters(&self) -> Result<u64, Failure> {
        let mut count = 0;
        for (_, queue) in self.queues.named() {
            count += chain::block_on(queue.dead_letters(usize::MAX))??.len() as u64;
        }
        Ok(count)
    }
}

/// Alerts as text, one after another.
#[derive(Clone, Debug, Default)]
pub struct Alerts(Rc<RefCell<Vec<u8>>>);

impl Alerts {
    /// What was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl io::Write for Alerts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
