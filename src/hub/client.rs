//! HTTP as a download needs it: one request on one connection, redirects followed by hand, and no
//! wait for a byte that never comes.
//!
//! A request says `User-Agent: darkroom/VERSION` and nothing else of who asks. The token goes to the
//! hub itself, never to where the hub redirects to, and never unencrypted over a network.

use super::{HubError, Token, error::shown, tls};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST, HeaderValue, IF_RANGE, LOCATION, RANGE, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::{sync::OnceLock, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// What every request says of itself.
const AGENT: &str = concat!("darkroom/", env!("CARGO_PKG_VERSION"));
/// Redirects in a row.
const REDIRECTS: usize = 8;

/// Opens connections to a hub, and to where it redirects.
pub(super) struct Client {
    home: Origin,
    token: Option<HeaderValue>,
    tls: OnceLock<Result<TlsConnector, String>>,
    patience: Duration,
}

/// Who is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    encrypted: bool,
    host: String,
    port: u16,
}

/// From which byte on a file is asked for, as long as it still is the one with that ETag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a> {
    pub(super) from: u64,
    pub(super) etag: Option<&'a str>,
}

/// What came back. The body is still to be read.
pub(super) struct Answer {
    response: Response<Incoming>,
    host: String,
    /// Whether the hub itself answered, and not where it redirects to.
    home: bool,
    patience: Duration,
    /// Keeps the connection open.
    _sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    /// A client of the hub at `home`, which waits `patience` for the next byte.
    pub(super) fn new(
        home: &Uri,
        token: Option<&Token>,
        patience: Duration,
    ) -> Result<Self, HubError> {
        let home = Origin::of(home).ok_or_else(|| HubError::Endpoint {
            value: shown(&home.to_string()),
            reason: "it names no host",
        })?;
        let token = token.filter(|_| home.is_private()).and_then(Token::header);
        Ok(Self { home, token, tls: OnceLock::new(), patience })
    }

    /// Whether requests to the hub carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks what is at `uri`, and stops where the hub says so or sends elsewhere.
    pub(super) async fn head(&self, uri: &Uri) -> Result<Answer, HubError> {
        let ends = |answer: &Answer, next: &Origin| {
            answer.header("x-linked-etag").is_some() || *next != self.home
        };
        self.follow(&Method::HEAD, uri, None, ends).await
    }

    /// Asks for what is at `uri`, wherever that is by now.
    pub(super) async fn get(&self, uri: &Uri, rest: Option<Rest<'_>>) -> Result<Answer, HubError> {
        self.follow(&Method::GET, uri, rest, |_, _| false).await
    }

    async fn follow(
        &self,
        method: &Method,
        uri: &Uri,
        rest: Option<Rest<'_>>,
        ends: impl Fn(&Answer, &Origin) -> bool,
    ) -> Result<Answer, HubError> {
        let mut uri = uri.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.request(method, &uri, rest).await?;
            if !matches!(answer.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let wrong = |reason| HubError::Redirect { host: answer.host.clone(), reason };
            let next = answer.response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let next = next.and_then(|to| join(&uri, to)).ok_or(wrong("to no address"))?;
            let origin = Origin::of(&next).ok_or(wrong("to no address of a web server"))?;
            if ends(&answer, &origin) {
                return Ok(answer);
            }
            if uri.scheme_str() == Some("https") && !origin.encrypted {
                return Err(wrong("from https to http, which is not followed"));
            }
            uri = next;
        }
        Err(HubError::Redirect { host: self.home.host.clone(), reason: "in a circle" })
    }

    async fn request(
        &self,
        method: &Method,
        uri: &Uri,
        rest: Option<Rest<'_>>,
    ) -> Result<Answer, HubError> {
        let origin =
            Origin::of(uri).ok_or_else(|| self.unreachable("it is no address of a web server"))?;
        let mut sender = self.connect(&origin).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, AGENT);
        if let Some(token) = self.token.as_ref().filter(|_| origin == self.home) {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some(rest) = rest {
            request = request.header(RANGE, format!("bytes={}-", rest.from));
            if let Some(etag) = rest.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        let (home, host) = (origin == self.home, origin.host);
        let request = request.body(Empty::new()).map_err(|error| HubError::Unreachable {
            host: host.clone(),
            reason: error.to_string(),
        })?;
        let patience = self.patience;
        match timeout(patience, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(Answer { response, host, home, patience, _sender: sender }),
            Ok(Err(error)) => Err(HubError::Broken { host, reason: describe(&error) }),
            Err(_) => Err(HubError::Stalled { host, seconds: patience.as_secs() }),
        }
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Empty<Bytes>>, HubError> {
        let host = origin.host.as_str();
        let failed = |reason: String| HubError::Unreachable { host: host.to_owned(), reason };
        let connect = async {
            let name = host.trim_matches(['[', ']']);
            let stream = TcpStream::connect((name, origin.port)).await;
            let stream = stream.map_err(|error| failed(error.to_string()))?;
            if !origin.encrypted {
                return Self::speak(stream, host).await;
            }
            let tls =
                self.tls.get_or_init(tls::connector).as_ref().map_err(|e| failed(e.clone()))?;
            let name = ServerName::try_from(name.to_owned());
            let name = name.map_err(|error| failed(error.to_string()))?;
            let stream =
                tls.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
            Self::speak(stream, host).await
        };
        let late = || Err(failed(format!("no answer within {} s", self.patience.as_secs())));
        timeout(self.patience, connect).await.unwrap_or_else(|_| late())
    }

    async fn speak(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        host: &str,
    ) -> Result<SendRequest<Empty<Bytes>>, HubError> {
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|error| HubError::Broken {
            host: host.to_owned(),
            reason: describe(&error),
        })?;
        // What goes wrong with it is told by whoever reads the answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn unreachable(&self, reason: &str) -> HubError {
        HubError::Unreachable { host: self.home.host.clone(), reason: reason.to_owned() }
    }
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Who answered.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the hub itself answered.
    pub(super) fn is_home(&self) -> bool {
        self.home
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// A header that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.header(name).and_then(|value| value.trim().parse().ok())
    }

    /// The next bytes of the body, none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, HubError> {
        loop {
            let frame = timeout(self.patience, self.response.body_mut().frame()).await;
            let host = || self.host.clone();
            match frame {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    // What is no data is trailers.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(HubError::Broken { host: host(), reason: describe(&error) });
                }
                Err(_) => {
                    return Err(HubError::Stalled {
                        host: host(),
                        seconds: self.patience.as_secs(),
                    });
                }
            }
        }
    }

    /// The whole body; none where it is larger than `most` bytes.
    pub(super) async fn all(mut self, most: usize) -> Result<Option<Vec<u8>>, HubError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > most {
                return Ok(None);
            }
            all.extend_from_slice(&bytes);
        }
        Ok(Some(all))
    }
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let encrypted = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        Some(Self { encrypted, host, port })
    }

    /// Whether nobody between here and there can read along.
    fn is_private(&self) -> bool {
        let address: Option<std::net::IpAddr> = self.host.trim_matches(['[', ']']).parse().ok();
        self.encrypted || self.host == "localhost" || address.is_some_and(|ip| ip.is_loopback())
    }
}

/// Where `to` leads from `uri`: an address, or a path on the same host.
fn join(uri: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let absolute = if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        to.to_owned()
    };
    absolute.parse().ok()
}

/// What went wrong on a connection, without the names of a library's layers.
fn describe(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_nowhere_unencrypted_but_within_this_machine() {
        let cases = [
            ("https://huggingface.co", true),
            ("https://mirror.example:8443/hf", true),
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("http://mirror.example", false),
            ("http://10.0.0.7:8080", false),
            ("http://localhost.example", false),
        ];
        for (home, expected) in cases {
            let token = Token::new("hf_x", "a test".to_owned()).expect("a token");
            let home: Uri = home.parse().expect("an address");
            let client = Client::new(&home, Some(&token), Duration::ZERO).expect("a host");
            assert_eq!(client.has_token(), expected, "{home}");
        }
    }

    #[test]
    fn a_redirect_is_read_as_an_address_or_a_path() {
        let from: Uri = "https://hub.example:8443/a/b?c".parse().expect("an address");
        let cases = [
            ("https://cdn.example/x?y=1", Some("https://cdn.example/x?y=1")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/x", Some("https://hub.example:8443/x")),
            ("", None),
        ];
        for (to, expected) in cases {
            let found = join(&from, to).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{to}");
        }
    }
}
