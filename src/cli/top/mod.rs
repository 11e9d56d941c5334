//! `ringway top`: the status on a screen that lives. This part has the terminal and the socket, one thread for each;
//! what is known and what is drawn is pure ([`model`], [`screen`]).

mod columns;
mod figures;
mod model;
mod reading;
mod screen;
#[cfg(test)]
mod tests;
mod track;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{
    self, Event as TerminalEvent, KeyCode, KeyEvent, KeyEventKind, KeyModifiers,
};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::status::SocketArguments;
use super::{Failure, Outcome, file};
use crate::admin::{Change, client};
use model::{Answer, Key, Model, Order, Wish};
use reading::{Event, Reading};
use screen::Palette;

pub(super) const EXAMPLES: &str = "\
Examples:
  ringway top
  ringway top --socket lab.sock
  ringway top --json | jq -c '[.now, .sessions_active]'     the status, once per second

Connect and 1st byte are means of the last ten seconds; `/metrics` has them as histograms.

Keys: arrows select a backend, d drains it, m puts it into maintenance, r makes it ready again (each asks first),
/ filters, t shows trouble only, s sorts, ? shows all keys, q quits. NO_COLOR=1 takes the colours away.";

/// How often it is asked, unless answers take long.
const EVERY: Duration = Duration::from_secs(1);
/// At most this part of the time is spent on answers: with very many backends they are long.
const SHARE: u32 = 10;
/// How often the screen is drawn although nothing came.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How long a last order may take before the screen ends without it.
const FINISH: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    socket: SocketArguments,

    /// Print the status as a line of JSON each second, with or without a terminal, until nobody answers any more
    #[arg(long)]
    json: bool,
}

/// What wakes the screen.
enum Input {
    Terminal(TerminalEvent),
    Answered(Box<Result<Answer, String>>),
    Operated(Result<String, String>),
    /// A signal, or the terminal is gone.
    Stop,
}

/// Shows it until somebody quits.
pub(super) fn top(arguments: &Arguments) -> Result<Outcome, Failure> {
    let socket = arguments.socket.socket.clone();
    if arguments.json {
        return print_lines(&socket);
    }
    let out = io::stdout();
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if !out.is_terminal() || !io::stdin().is_terminal() || is_dumb {
        return Err(Failure::Running(
            "`top` needs a terminal (standard input and output, and TERM that is not dumb); `ringway status` prints \
             the same once, `ringway top --json` for programs"
                .to_owned(),
        ));
    }
    let palette = Palette {
        has_colours: file::has_colours(&out),
    };
    // Whoever starts it with the wrong socket is told so before the screen is taken.
    let mut known = Known::default();
    let first = known.ask(&socket)?;
    let (inputs, input) = mpsc::channel();
    let (orders, order) = mpsc::channel();
    let failed = |error: io::Error| Failure::Running(error.to_string());
    spawn("signals", {
        let inputs = inputs.clone();
        move || follow_signals(&inputs)
    })
    .map_err(failed)?;
    spawn("socket", {
        let inputs = inputs.clone();
        move || follow_process(&socket, known, &order, &inputs)
    })
    .map_err(failed)?;
    // It also sees to it that a panic gives the terminal back before it says anything.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let started = spawn("keys", move || follow_terminal(&inputs));
    let shown = started.and_then(|()| {
        let model = Model::new(first, now());
        show(&mut terminal, model, palette, &input, &orders)
    });
    ratatui::restore();
    shown.map_err(failed)?;
    Ok(Outcome::Success)
}

/// Until nobody answers, or nobody reads any more.
fn print_lines(socket: &Path) -> Result<Outcome, Failure> {
    loop {
        let begun = Instant::now();
        let status = client::status(socket)?;
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{status}").and_then(|()| out.flush());
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Outcome::Success),
            Err(error) => return Err(Failure::Running(format!("standard output: {error}"))),
        }
        let took = begun.elapsed();
        thread::sleep(EVERY.saturating_sub(took).max(took * (SHARE - 1)));
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    palette: Palette,
    input: &Receiver<Input>,
    orders: &Sender<Wish>,
) -> io::Result<()> {
    let mut under_way = 0;
    loop {
        let mut page = 0;
        terminal.draw(|frame| page = screen::draw(frame, &model, palette))?;
        model.set_page(page);
        let first = match input.recv_timeout(DRAW_EVERY) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        model.tick(now());
        for one in first.into_iter().chain(input.try_iter()) {
            let order = match one {
                Input::Stop => Some(Order::Quit),
                Input::Answered(answer) => {
                    match *answer {
                        Ok(answer) => model.answered(answer, now()),
                        Err(why) => model.failed(why, now()),
                    }
                    None
                }
                Input::Operated(result) => {
                    under_way -= 1;
                    model.operated(result, now());
                    None
                }
                Input::Terminal(TerminalEvent::Key(event)) => {
                    key(event).and_then(|key| model.key(key))
                }
                Input::Terminal(_) => None,
            };
            match order {
                None => {}
                Some(Order::Quit) => {
                    finish(under_way, input);
                    return Ok(());
                }
                Some(Order::Redraw) => terminal.clear()?,
                Some(Order::Operate(wish)) => {
                    under_way += 1;
                    orders
                        .send(wish)
                        .expect("the thread lives as long as this one");
                }
            }
        }
    }
}

/// Keys that have a name, and what they are to us.
const NAMED: [(KeyCode, Key); 9] = [
    (KeyCode::Enter, Key::Enter),
    (KeyCode::Esc, Key::Escape),
    (KeyCode::Backspace, Key::Backspace),
    (KeyCode::Up, Key::Up),
    (KeyCode::Down, Key::Down),
    (KeyCode::PageUp, Key::PageUp),
    (KeyCode::PageDown, Key::PageDown),
    (KeyCode::Home, Key::Home),
    (KeyCode::End, Key::End),
];

fn key(event: KeyEvent) -> Option<Key> {
    let is_control = event.modifiers.contains(KeyModifiers::CONTROL);
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if let KeyCode::Char(letter) = event.code {
        return match (is_control, letter) {
            (true, 'c') => Some(Key::Interrupt),
            (true, 'l') => Some(Key::Redraw),
            (true, _) => None,
            (false, letter) => Some(Key::Letter(letter)),
        };
    }
    let named = NAMED.iter().find(|(code, _)| *code == event.code);
    named.map(|(_, key)| *key)
}

/// What somebody has confirmed is not forgotten because they quit at once.
fn finish(mut under_way: usize, input: &Receiver<Input>) {
    let until = Instant::now() + FINISH;
    while under_way > 0 {
        let left = until.saturating_duration_since(Instant::now());
        match input.recv_timeout(left) {
            Ok(Input::Operated(_)) => under_way -= 1,
            Ok(Input::Terminal(_) | Input::Answered(_) | Input::Stop) => {}
            Err(_) => return,
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map(drop)
}

fn follow_terminal(inputs: &Sender<Input>) {
    loop {
        let input = event::read().map_or(Input::Stop, Input::Terminal);
        let is_last = matches!(input, Input::Stop);
        if inputs.send(input).is_err() || is_last {
            return;
        }
    }
}

fn follow_signals(inputs: &Sender<Input>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        let _ = inputs.send(Input::Stop);
    });
}

/// What was last heard from the process.
#[derive(Debug, Default)]
struct Known {
    process: (u64, u64),
    /// Number of the last event.
    event: u64,
}

impl Known {
    fn ask(&mut self, socket: &Path) -> Result<Answer, client::Error> {
        let status = client::status(socket)?;
        let reading: Reading = read(socket, status)?;
        let process = (reading.pid, reading.started);
        if process != self.process {
            *self = Known { process, event: 0 };
        }
        let events: Vec<Event> = read(socket, client::history(socket, self.event)?)?;
        self.event = events.last().map_or(self.event, |event| event.id);
        Ok(Answer { reading, events })
    }
}

fn read<T: serde::de::DeserializeOwned>(socket: &Path, value: Value) -> Result<T, client::Error> {
    serde_json::from_value(value).map_err(|error| client::Error::Broken {
        path: socket.to_owned(),
        why: error.to_string(),
    })
}

/// Asks again and again, and carries out orders in between.
fn follow_process(
    socket: &Path,
    mut known: Known,
    orders: &Receiver<Wish>,
    inputs: &Sender<Input>,
) {
    let mut pause = EVERY;
    loop {
        match orders.recv_timeout(pause) {
            Ok(wish) => {
                if inputs
                    .send(Input::Operated(operate(socket, &wish)))
                    .is_err()
                {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let begun = Instant::now();
        let answer = known.ask(socket).map_err(|error| error.to_string());
        pause = EVERY.max(begun.elapsed() * SHARE);
        if answer.is_err() {
            pause = EVERY;
        }
        if inputs.send(Input::Answered(Box::new(answer))).is_err() {
            return;
        }
    }
}

fn operate(socket: &Path, wish: &Wish) -> Result<String, String> {
    let change = Change {
        state: Some(wish.state),
        ..Change::default()
    };
    let (pool, backend) = (&wish.pool, &wish.backend);
    match client::operate(socket, pool, backend, &change) {
        Ok(_) => Ok(format!(
            "{pool}/{backend}: {} (on this node only)",
            wish.state.as_str()
        )),
        Err(error) => Err(format!("{pool}/{backend}: {error}")),
    }
}
