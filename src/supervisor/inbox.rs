//! What the actor hears, from the two sides that speak to it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::command::{Command, Notice};

/// The ends of both channels.
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) notices: mpsc::Receiver<Notice>,
    /// Whose turn it is when both wait.
    pub(super) turn: Turn,
}

/// Who is heard first.
#[derive(Clone, Copy, Default)]
pub(super) enum Turn {
    #[default]
    World,
    Callers,
}

/// What was heard.
pub(super) enum Heard {
    Command(Command),
    Notice(Box<Notice>),
    /// No caller is left.
    End,
}

impl Inbox {
    /// The next message. Both sides take turns: a flood of one holds up nothing of the other.
    pub(super) async fn next(&mut self) -> Heard {
        poll_fn(|context| {
            let (first, then) = match self.turn {
                Turn::World => (Turn::World, Turn::Callers),
                Turn::Callers => (Turn::Callers, Turn::World),
            };
            self.turn = then;
            match self.poll(first, context) {
                Poll::Pending => self.poll(then, context),
                heard @ Poll::Ready(_) => heard,
            }
        })
        .await
    }

    fn poll(&mut self, turn: Turn, context: &mut Context<'_>) -> Poll<Heard> {
        match turn {
            Turn::World => {
                let notice = self.notices.poll_recv(context);
                notice.map(|notice| Heard::Notice(Box::new(notice.expect("the actor holds a sender"))))
            }
            Turn::Callers => {
                let command = self.commands.poll_recv(context);
                command.map(|command| command.map_or(Heard::End, Heard::Command))
            }
        }
    }
}
