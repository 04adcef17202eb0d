//! A redis server with some data of its own: filled, and asked whether all of it is there.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Where it listens, and what it was told.
pub(super) struct Redis {
    port: u16,
    keys: u64,
}

/// Bytes of a value.
const VALUE: u64 = 1000;

impl Redis {
    /// One that is to have about so many bytes of values.
    pub(super) fn new(bytes: u64) -> Result<Self> {
        let free = TcpListener::bind(("127.0.0.1", 0))?;
        Ok(Self {
            port: free.local_addr()?.port(),
            keys: bytes / VALUE,
        })
    }

    /// Options of the server.
    pub(super) fn options(&self) -> [String; 8] {
        let port = self.port.to_string();
        [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        .map(str::to_owned)
    }

    /// Tells it everything, once it listens.
    pub(super) fn fill(&self) -> Result<()> {
        let stream = self.connect(Duration::from_secs(10))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let mut requests = std::io::BufWriter::with_capacity(1 << 16, stream);
        for chunk in 0..self.keys.div_ceil(1000) {
            let keys = chunk * 1000..self.keys.min(chunk * 1000 + 1000);
            for key in keys.clone() {
                let (name, value) = (format!("user:{key}"), value(key));
                write!(requests, "*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n", name.len())?;
                write!(requests, "${}\r\n{value}\r\n", value.len())?;
            }
            requests.flush()?;
            let mut line = String::new();
            for _ in keys {
                line.clear();
                answers.read_line(&mut line)?;
                ensure!(line == "+OK\r\n", "it answers {line:?}");
            }
        }
        Ok(())
    }

    /// Asks for some of it.
    pub(super) fn ask(&self) -> Result<()> {
        self.ask_for((0..self.keys).step_by(1 + self.keys as usize / 20))
    }

    /// Asks for one thing.
    pub(super) fn ask_once(&self) -> Result<()> {
        self.ask_for(std::iter::once(self.keys / 2))
    }

    fn ask_for(&self, keys: impl Iterator<Item = u64>) -> Result<()> {
        let stream = self.connect(Duration::from_secs(10))?;
        let mut answers = BufReader::new(stream.try_clone()?);
        let mut requests = stream;
        for key in keys {
            let name = format!("user:{key}");
            write!(requests, "*2\r\n$3\r\nGET\r\n${}\r\n{name}\r\n", name.len())?;
            let (mut head, mut text) = (String::new(), String::new());
            answers.read_line(&mut head)?;
            answers.read_line(&mut text)?;
            ensure!(text.trim_end() == value(key), "{name} is {text:?}");
        }
        Ok(())
    }

    fn connect(&self, patience: Duration) -> Result<TcpStream> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Err(_) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                stream => return stream.context("connect to redis"),
            }
        }
    }
}

/// A record as a web service may keep it: about three to one when packed.
fn value(key: u64) -> String {
    const WORDS: [&str; 16] = [
        "account", "active", "address", "amount", "city", "country", "customer", "delivery",
        "email", "invoice", "order", "paid", "product", "quantity", "status", "street",
    ];
    let mut dice = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(VALUE as usize + 64);
    while (text.len() as u64) < VALUE {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let word = WORDS[(dice >> 60) as usize];
        text.push_str(&format!("\"{word}\":\"{:x}\",", dice >> 24 & 0xff_ffff));
    }
    text
}
