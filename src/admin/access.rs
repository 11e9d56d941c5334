//! Who may do what: everybody who reaches it may look, changes need a token unless they come through the unix socket,
//! whose file has an owner and a mode.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use utoipa::IntoResponses;

use super::Refusal;

const TOKEN_MIN: usize = 16;
const TOKEN_MAX: usize = 1024;
/// What those may who are neither owner nor of the group.
const OTHERS: u32 = 0o007;

/// What changes need.
#[derive(Clone)]
pub(super) struct Token(Arc<[u8]>);

/// A secret is shown nowhere.
impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}

impl Token {
    /// The one in this file; white space around it does not count.
    pub(super) fn read(path: &Path) -> Result<Token, String> {
        let name = path.display();
        let text = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
        let mode = std::fs::metadata(path).map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            tracing::warn!(file = %name, "everybody on this host can read the token: chmod o-rwx mends that");
        }
        Token::new(text.trim_ascii()).ok_or_else(|| {
            format!("{name} does not hold a token of {TOKEN_MIN} to {TOKEN_MAX} printable ASCII characters")
        })
    }

    fn new(text: &[u8]) -> Option<Token> {
        let is_sensible =
            (TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        is_sensible.then(|| Token(Arc::from(text)))
    }

    /// Takes as long for a token that is nearly right as for one that is not at all.
    fn is(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

/// What somebody who reaches the API may do.
#[derive(Clone, Debug)]
pub(super) enum Rights {
    /// Everything.
    All,
    /// Look.
    Reading,
    /// Look; with this token, everything.
    WithToken(Token),
}

impl Rights {
    /// What changes need here, in a word: `all` may be changed, `none`, or with the `token`.
    pub(super) fn changes(&self) -> &'static str {
        match self {
            Rights::All => "all",
            Rights::Reading => "none",
            Rights::WithToken(_) => "token",
        }
    }

    fn permit(&self, is_change: bool, shown: Shown<'_>) -> Result<(), Denial> {
        match (self, shown) {
            (Rights::All, _) => Ok(()),
            (Rights::Reading, _) if is_change => Err(Denial::ReadOnly),
            (Rights::Reading, _) => Ok(()),
            (Rights::WithToken(token), Shown::Token(found)) if token.is(found) => Ok(()),
            (Rights::WithToken(_), Shown::Nothing) if !is_change => Ok(()),
            // A wrong one is a mistake that is better told at once.
            (Rights::WithToken(_), Shown::Token(_) | Shown::Other) => Err(Denial::WrongToken),
            (Rights::WithToken(_), Shown::Nothing) => Err(Denial::NoToken),
        }
    }
}

/// What a request has shown.
#[derive(Clone, Copy)]
enum Shown<'a> {
    Nothing,
    Token(&'a [u8]),
    /// Something else than a token.
    Other,
}

fn shown(headers: &HeaderMap) -> Shown<'_> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    match (all.next(), all.next()) {
        (None, _) => Shown::Nothing,
        (Some(value), None) => match value.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                Shown::Token(token.trim_ascii())
            }
            Some(_) | None => Shown::Other,
        },
        (Some(_), Some(_)) => Shown::Other,
    }
}

/// Whether a browser asks for a page of some other site. The socket needs no token, and may be forwarded to where a
/// browser reaches it (`ssh -L 9901:/run/ringway/admin.sock`): only the dashboard itself may change something there.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.unwrap_or_default();
    let is_same = origin.as_bytes().strip_prefix(b"http://") == Some(host);
    // Any name may be made to lead to this host.
    let is_here = ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
        let rest = host.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
    });
    !(is_same && is_here)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    AnotherSite,
    ReadOnly,
    NoToken,
    WrongToken,
}

/// The same, as every change is described.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its description is used")]
pub(super) enum Denied {
    #[response(status = 401, description = "A token is needed, or it is wrong")]
    Token,
    #[response(status = 403, description = "Nothing can be changed at this address")]
    Address,
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let (status, message) = match self {
            Denial::AnotherSite => (
                StatusCode::FORBIDDEN,
                "a page of another site may change nothing: open the dashboard as http://localhost:PORT/",
            ),
            Denial::ReadOnly => (
                StatusCode::FORBIDDEN,
                "nothing can be changed at this address: use the admin socket, or configure `admin.http.token_file`",
            ),
            Denial::NoToken => (
                StatusCode::UNAUTHORIZED,
                "a change needs a token: send `Authorization: Bearer TOKEN`",
            ),
            Denial::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "this is not the token of `admin.http.token_file`",
            ),
        };
        let mut response = Refusal {
            status,
            message: message.to_owned(),
        }
        .into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"ringway\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Lets a request through, or answers it.
pub(super) async fn check(State(rights): State<Rights>, request: Request, next: Next) -> Response {
    let is_change = !request.method().is_safe();
    if is_change && matches!(rights, Rights::All) && is_of_another_site(request.headers()) {
        return Denial::AnotherSite.into_response();
    }
    match rights.permit(is_change, shown(request.headers())) {
        Ok(()) => next.run(request).await,
        Err(denial) => denial.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn who_may_look_and_who_may_change() {
        let token = || Token::new(b"0123456789abcdef").unwrap();
        let right = Shown::Token(b"0123456789abcdef");
        for (rights, shown, look, change) in [
            (Rights::All, Shown::Nothing, Ok(()), Ok(())),
            (
                Rights::Reading,
                Shown::Nothing,
                Ok(()),
                Err(Denial::ReadOnly),
            ),
            (Rights::Reading, right, Ok(()), Err(Denial::ReadOnly)),
            (Rights::WithToken(token()), right, Ok(()), Ok(())),
            (
                Rights::WithToken(token()),
                Shown::Nothing,
                Ok(()),
                Err(Denial::NoToken),
            ),
            (
                Rights::WithToken(token()),
                Shown::Token(b"0123456789abcdeF"),
                Err(Denial::WrongToken),
                Err(Denial::WrongToken),
            ),
            (
                Rights::WithToken(token()),
                Shown::Token(b""),
                Err(Denial::WrongToken),
                Err(Denial::WrongToken),
            ),
            (
                Rights::WithToken(token()),
                Shown::Other,
                Err(Denial::WrongToken),
                Err(Denial::WrongToken),
            ),
        ] {
            assert_eq!(rights.permit(false, shown), look, "{rights:?}");
            assert_eq!(rights.permit(true, shown), change, "{rights:?}");
        }
    }

    #[test]
    fn a_page_of_another_site_changes_nothing_through_a_forwarded_socket() {
        for (origin, host, is_other) in [
            (None, "ringway", false),
            (Some("http://localhost:9901"), "localhost:9901", false),
            (Some("http://127.0.0.1:9901"), "127.0.0.1:9901", false),
            (Some("http://[::1]:9901"), "[::1]:9901", false),
            (Some("http://localhost"), "localhost", false),
            (Some("https://example.com"), "localhost:9901", true),
            (Some("http://localhost:3000"), "localhost:9901", true),
            (Some("http://example.com:9901"), "example.com:9901", true),
            (
                Some("http://localhost.example.com"),
                "localhost.example.com",
                true,
            ),
            (Some("null"), "localhost:9901", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(
                is_of_another_site(&headers),
                is_other,
                "{origin:?} at {host}"
            );
        }
    }

    #[test]
    fn only_a_bearer_token_is_one() {
        for (values, expected) in [
            (&[][..], "nothing"),
            (&["Bearer abc"], "abc"),
            (&["bearer  abc "], "abc"),
            (&["Basic abc"], "other"),
            (&["abc"], "other"),
            (&["Bearer abc", "Bearer abc"], "other"),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_static(value);
                headers.append(header::AUTHORIZATION, value);
            }
            let found = match shown(&headers) {
                Shown::Nothing => "nothing",
                Shown::Token(token) => std::str::from_utf8(token).unwrap(),
                Shown::Other => "other",
            };
            assert_eq!(found, expected, "{values:?}");
        }
    }

    /// What stops at the first difference takes longer the later that comes.
    #[test]
    fn a_wrong_token_takes_as_long_wherever_it_is_wrong() {
        let text = [b'x'; TOKEN_MAX];
        let token = Token::new(&text).unwrap();
        let wrong_at = |place: usize| {
            let mut other = text;
            other[place] = b'y';
            other
        };
        let others = [wrong_at(0), wrong_at(TOKEN_MAX - 1)];
        let mut least = [Duration::MAX; 2];
        for _ in 0..500 {
            for (other, least) in others.iter().zip(&mut least) {
                let begun = Instant::now();
                for _ in 0..20 {
                    assert!(!black_box(&token).is(black_box(other)));
                }
                *least = begun.elapsed().min(*least);
            }
        }
        let ratio = least[1].as_secs_f64() / least[0].as_secs_f64();
        assert!((0.67..1.5).contains(&ratio), "{least:?}");
    }

    #[test]
    fn tokens_that_are_short_or_not_printable_are_none() {
        for text in [
            &b""[..],
            b"short",
            b"0123456789abcde\xc3",
            b"0123456789 abcdef",
        ] {
            assert!(Token::new(text).is_none(), "{text:?}");
        }
        assert!(Token::new(&[b'x'; TOKEN_MAX + 1]).is_none());
    }
}
