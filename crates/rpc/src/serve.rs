//! The requests of a connection, one after the other, as clients count on it.

use crate::channel::Channel;
use crate::messages::{
    DumpResponse, Features, Options, PageServer, Request, RequestKind, Response, RestoreResponse,
    Version,
};

/// The exit code after what CRIU has no answer for.
const BROKEN: u8 = 255;

/// `EBADRQC`: options could not be applied.
const BAD_REQUEST: i32 = 56;

/// No message is longer: clients have little room.
const LONGEST_MESSAGE: usize = 1023;

/// How a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T = ()> {
    /// What came of it.
    pub result: Result<T, Failure>,
    /// The first error of the log.
    pub message: Option<String>,
}

impl<T> Answer<T> {
    /// A failure that nobody has logged.
    #[must_use]
    pub fn refused(message: String) -> Self {
        Self {
            result: Err(Failure::BAD_REQUEST),
            message: Some(message),
        }
    }
}

/// Why a request has failed, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failure {
    /// A number of `errno(3)`, if one fits.
    pub errno: Option<i32>,
    /// The root of a restore, if it was there for a time.
    pub root: Option<i32>,
}

impl Failure {
    /// The options make no sense, or cannot be applied.
    pub const BAD_REQUEST: Self = Self::with_errno(BAD_REQUEST);

    /// A failure with a number.
    #[must_use]
    pub const fn with_errno(errno: i32) -> Self {
        Self {
            errno: Some(errno),
            root: None,
        }
    }
}

/// Does what is asked for.
pub trait Handler {
    /// The version that is spoken.
    fn version(&mut self) -> Version;
    /// Those of the features that are there.
    fn features(&mut self, asked: Features) -> Features;
    /// Looks at the kernel.
    fn check(&mut self, options: Option<&Options>) -> Answer;
    /// Writes down, or compares, the features of this CPU.
    fn cpuinfo(&mut self, kind: RequestKind, options: &Options) -> Answer;
    /// Starts a page server.
    fn page_server(&mut self, kind: RequestKind, options: &Options) -> Answer<PageServer>;
    /// Waits for a child, and gives its status as `wait(2)` has it.
    fn wait_for(&mut self, pid: u32) -> Answer<i32>;
    /// Dumps the memory of a tree that runs on.
    fn pre_dump(&mut self, options: &Options) -> Answer;
    /// Dumps a tree.
    fn dump(&mut self, options: &Options) -> Answer;
    /// Restores a tree, and gives its root.
    fn restore(&mut self, options: &Options) -> Answer<i32>;
}

/// Answers the requests on a channel until the last one, and gives the exit code that clients expect then.
pub fn serve(channel: &Channel, handler: &mut impl Handler) -> u8 {
    loop {
        let request = match channel.receive() {
            Ok(Some(request)) => request,
            Ok(None) => return BROKEN,
            Err(error) => {
                tracing::error!("{error}");
                return BROKEN;
            }
        };
        let Some(kind) = request.kind() else {
            return not_understood(channel, request.r#type, None);
        };
        let keep_open = request.keep_open.unwrap_or(false);
        if keep_open && !kind.may_keep_open() {
            tracing::error!("{}: the connection cannot be kept open", kind.name());
            return BROKEN;
        }
        tracing::debug!(request = kind.name(), "request");
        let done = match kind {
            RequestKind::PreDump => return pre_dumps(channel, handler, request),
            RequestKind::Empty | RequestKind::Notify => {
                return not_understood(channel, request.r#type, None);
            }
            kind => answer(kind, &request, handler),
        };
        let sent = reply(channel, &done.response);
        if !keep_open {
            return done.code;
        }
        if !sent {
            return BROKEN;
        }
    }
}

/// An answer, and the exit code if it is the last one.
struct Done {
    response: Response,
    code: u8,
}

impl Done {
    /// CRIU's exit code is 0 for these, whatever the answer.
    fn well(response: Response) -> Self {
        Self { response, code: 0 }
    }
}

fn answer(kind: RequestKind, request: &Request, handler: &mut impl Handler) -> Done {
    let opts = request.opts.as_deref();
    match kind {
        RequestKind::Version => Done::well(Response {
            version: Some(handler.version()),
            ..response(kind, true)
        }),
        RequestKind::FeatureCheck => Done::well(match request.features {
            Some(asked) => Response {
                features: Some(features(asked, handler)),
                ..response(kind, true)
            },
            None => response(kind, false),
        }),
        RequestKind::Check => Done::well(filled(kind, handler.check(opts)).0),
        RequestKind::CpuinfoDump | RequestKind::CpuinfoCheck => {
            let answer = with(opts, |opts| handler.cpuinfo(kind, opts));
            Done::well(filled(kind, answer).0)
        }
        RequestKind::PageServer | RequestKind::PageServerChild => {
            let answer = with(opts, |opts| handler.page_server(kind, opts));
            let (response, ps) = filled(RequestKind::PageServer, answer);
            Done::well(Response { ps, ..response })
        }
        RequestKind::WaitPid => {
            let answer = handler.wait_for(request.pid.unwrap_or(0));
            let (response, status) = filled(kind, answer);
            Done::well(Response { status, ..response })
        }
        RequestKind::SinglePreDump => {
            let (response, done) = filled(kind, with(opts, |opts| handler.pre_dump(opts)));
            let code = if done.is_some() { 0 } else { BROKEN };
            Done { response, code }
        }
        RequestKind::Dump => dump(opts, handler),
        RequestKind::Restore => {
            let answer = with(opts, |opts| handler.restore(opts));
            let pid = match answer.result {
                Ok(pid) => pid,
                Err(failure) => failure.root.unwrap_or(-1),
            };
            let (response, done) = filled(kind, answer);
            Done {
                response: Response {
                    restore: Some(RestoreResponse { pid }),
                    ..response
                },
                code: u8::from(done.is_none()),
            }
        }
        // These do not come here.
        RequestKind::Empty | RequestKind::Notify | RequestKind::PreDump => Done {
            response: response(RequestKind::Empty, false),
            code: BROKEN,
        },
    }
}

fn dump(opts: Option<&Options>, handler: &mut impl Handler) -> Done {
    let (response, done) = filled(RequestKind::Dump, with(opts, |opts| handler.dump(opts)));
    Done {
        response: Response {
            dump: Some(DumpResponse {
                restored: Some(false),
            }),
            ..response
        },
        code: u8::from(done.is_none()),
    }
}

/// Each answer names all features; one that was not asked for is not there.
fn features(asked: Features, handler: &mut impl Handler) -> Features {
    let found = handler.features(asked);
    let both = |asked: Option<bool>, found: Option<bool>| {
        Some(asked.unwrap_or(false) && found.unwrap_or(false))
    };
    Features {
        mem_track: both(asked.mem_track, found.mem_track),
        lazy_pages: both(asked.lazy_pages, found.lazy_pages),
        pidfd_store: both(asked.pidfd_store, found.pidfd_store),
    }
}

/// Dumps of memory, one after the other, then perhaps a dump.
fn pre_dumps(channel: &Channel, handler: &mut impl Handler, first: Request) -> u8 {
    let mut request = first;
    loop {
        match request.kind() {
            Some(RequestKind::PreDump) => {
                let answer = with(request.opts.as_deref(), |opts| handler.pre_dump(opts));
                let (response, done) = filled(RequestKind::PreDump, answer);
                if !reply(channel, &response) || done.is_none() {
                    return BROKEN;
                }
            }
            Some(RequestKind::Dump) => {
                let done = dump(request.opts.as_deref(), handler);
                reply(channel, &done.response);
                return done.code;
            }
            _ => return not_understood(channel, request.r#type, Some("Bad req seq")),
        }
        request = match channel.receive() {
            Ok(Some(request)) => request,
            Ok(None) => return 0,
            Err(error) => {
                tracing::error!("{error}");
                return BROKEN;
            }
        };
    }
}

/// Answers what is no request, or comes at a wrong time.
fn not_understood(channel: &Channel, number: i32, message: Option<&str>) -> u8 {
    tracing::error!("{} (request {number})", message.unwrap_or("Invalid req"));
    let empty = Response {
        cr_errmsg: message.map(|message| message.as_bytes().to_vec()),
        ..response(RequestKind::Empty, false)
    };
    reply(channel, &empty);
    BROKEN
}

/// Whether the answer was sent; a client that was dumped is not there any more to take it.
fn reply(channel: &Channel, response: &Response) -> bool {
    let sent = channel.send(response);
    if let Err(error) = &sent {
        tracing::warn!("{error}");
    }
    sent.is_ok()
}

/// Most requests make no sense without options.
fn with<T>(options: Option<&Options>, request: impl FnOnce(&Options) -> Answer<T>) -> Answer<T> {
    match options {
        Some(options) => request(options),
        None => Answer::refused("the request has no options\n".to_owned()),
    }
}

fn response(kind: RequestKind, success: bool) -> Response {
    Response {
        r#type: kind.into(),
        success,
        ..Response::default()
    }
}

/// The answer to a request, and what else there is to say.
fn filled<T>(kind: RequestKind, answer: Answer<T>) -> (Response, Option<T>) {
    let message = answer.message.map(String::into_bytes).map(|mut message| {
        message.truncate(LONGEST_MESSAGE);
        message
    });
    let errno = answer
        .result
        .as_ref()
        .err()
        .and_then(|failure| failure.errno);
    let response = Response {
        cr_errno: errno,
        cr_errmsg: message,
        ..response(kind, answer.result.is_ok())
    };
    (response, answer.result.ok())
}

#[cfg(test)]
mod tests;
