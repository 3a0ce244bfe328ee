//! A daemon that runs under the injector, and what the injector tells of it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::agent::{eventually, patient, send};
use crate::inject::Order;
use crate::site::{SITE_VARIABLE, Site};

/// What was told so far.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The daemon's process id.
    pub daemon: Option<u32>,
    /// The call that went wrong.
    pub injected: Option<String>,
    /// How the daemon ended.
    pub ended: Option<String>,
    /// How many calls there were, by who makes them, their class and the fault.
    pub counts: BTreeMap<(String, String, String), usize>,
    /// Everything that was traced has ended.
    pub over: bool,
}

/// A daemon under the injector.
pub struct Traced {
    injector: Child,
    orders: ChildStdin,
    told: Arc<Mutex<Told>>,
}

impl Traced {
    /// Launches the daemon of a site.
    pub async fn launch(site: &Site, order: Option<Order>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("--inject").arg(site.dir());
        match order {
            None => command.arg("-"),
            Some(Order { role, class, fault, number }) => {
                command.arg(format!("{} {} {} {number}", role.word(), class.word(), fault.word()))
            }
        };
        command.arg(env!("CARGO_BIN_EXE_shutterd")).arg("--config").arg(site.dir().join("flow.toml"));
        command.arg("serve").env(SITE_VARIABLE, site.dir()).env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut injector = command.spawn().expect("this program can be run again");
        let orders = injector.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(injector.stdout.take().expect("it is piped")).lines();
        let told = Arc::new(Mutex::new(Told::default()));
        tokio::spawn({
            let told = Arc::clone(&told);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    told.lock().expect("no holder can panic").hear(&line);
                }
            }
        });
        let traced = Self { injector, orders, told };
        eventually("the daemon is begun", || traced.told().daemon.is_some()).await;
        traced
    }

    pub fn told(&self) -> Told {
        self.told.lock().expect("no holder can panic").clone()
    }

    /// Ends the daemon by SIGTERM, unless it is gone.
    pub fn terminate(&self) {
        let told = self.told();
        if let Some(daemon) = told.daemon.filter(|_| told.ended.is_none()) {
            send(daemon, Signal::TERM);
        }
    }

    /// Whether the daemon ends, which may take a moment after it was killed.
    pub async fn has_ended(&self) -> bool {
        let ended = async {
            while self.told().ended.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_millis(500), ended).await.is_ok()
    }

    /// Waits until everything that is traced has ended by itself.
    pub async fn over(&self) {
        eventually("everything traced has ended", || self.told().over).await;
    }

    /// Kills what is left; with `cut`, nothing stays on the disk but what was synced.
    pub async fn end(mut self, how: &str) -> Told {
        // It may be gone by now, after a cut.
        let _ = self.orders.write_all(format!("{how}\n").as_bytes()).await;
        let status =
            patient("the injector's end", self.injector.wait()).await.expect("a child can be waited for");
        assert!(status.success(), "the injector ended with {status}");
        eventually("it was heard to its end", || self.told().over).await;
        self.told()
    }
}

impl Told {
    fn hear(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("daemon", pid) => self.daemon = pid.parse().ok(),
            ("injected", what) => self.injected = Some(what.to_owned()),
            ("ended", how) => self.ended = Some(how.to_owned()),
            ("count", rest) => {
                if let [role, class, fault, count] = rest.split(' ').collect::<Vec<_>>()[..] {
                    let key = (role.to_owned(), class.to_owned(), fault.to_owned());
                    self.counts.insert(key, count.parse().unwrap_or(0));
                }
            }
            ("over", _) => self.over = true,
            _ => panic!("the injector says {line:?}"),
        }
    }
}
