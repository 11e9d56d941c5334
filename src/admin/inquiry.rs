//! What a request asks behind its path, and in its body: read with messages that say what would be right.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use utoipa::IntoResponses;

use super::Refusal;

/// The query of a request: keys and values.
#[derive(Debug)]
pub(super) struct Inquiry(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Inquiry {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Inquiry, Refusal> {
        Inquiry::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Inquiry {
    fn parse(query: &str) -> Result<Inquiry, Refusal> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let decoded = |text: &str| {
            let text = text.replace('+', " ");
            let text = percent_decode_str(&text).decode_utf8();
            text.map(|text| text.into_owned())
                .map_err(|_| Refusal::bad_request("the query is not UTF-8".to_owned()))
        };
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(key)?, decoded(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Inquiry)
    }

    /// Only these keys, each once.
    pub(super) fn only(self, keys: &[&str]) -> Result<Inquiry, Refusal> {
        for (place, (key, _)) in self.0.iter().enumerate() {
            let known = keys.join(", ");
            if !keys.contains(&key.as_str()) {
                return Err(Refusal::bad_request(format!(
                    "there is no `{key}` to ask for; there are {known}"
                )));
            }
            if self.0[..place].iter().any(|(other, _)| other == key) {
                return Err(Refusal::bad_request(format!("`{key}` is given twice")));
            }
        }
        Ok(self)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == key);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, Refusal>
    where
        T::Err: Display,
    {
        self.read(key, |text| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            let number = is_plain.then(|| text.parse::<T>().ok()).flatten();
            number.ok_or_else(|| "it is no whole number, or too large".to_owned())
        })
    }

    /// A value by a parser that says what is wrong.
    pub(super) fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Refusal> {
        let parsed = self.text(key).map(parse).transpose();
        parsed.map_err(|why| Refusal::bad_request(format!("`{key}`: {why}")))
    }
}

/// Bodies that are not read, as every request with one is described.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its description is used")]
pub(super) enum Unread {
    #[response(status = 413, description = "The body is too large")]
    TooLarge,
    #[response(status = 415, description = "The body is no JSON")]
    NoJson,
}

/// The body of a request as JSON.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_json = kind.is_none_or(|kind| {
            let kind = kind.to_str().unwrap_or_default();
            kind.split(';').next().unwrap_or_default().trim() == "application/json"
        });
        if !is_json {
            return Err(Refusal {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                message:
                    "the body is not application/json: say so with `Content-Type` (curl --json)"
                        .to_owned(),
            });
        }
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Refusal {
                status: rejection.status(),
                message: rejection.body_text(),
            })?;
        // A list of its values is no object.
        if bytes
            .trim_ascii_start()
            .first()
            .is_some_and(|first| *first != b'{')
        {
            let why = "the body is not what is asked for here: a JSON object";
            return Err(Refusal::bad_request(why.to_owned()));
        }
        let read = serde_json::from_slice(&bytes);
        read.map(Body).map_err(|error| {
            Refusal::bad_request(format!("the body is not what is asked for here: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_what_is_unknown_or_twice_there_refused() {
        let query = |text: &str| Inquiry::parse(text).and_then(|query| query.only(&["a", "b"]));
        let good = query("a=1&b=x%2Fy+z").unwrap();
        assert_eq!(good.number::<u8>("a").unwrap(), Some(1));
        assert_eq!(good.text("b"), Some("x/y z"));
        assert!(query("c=1").is_err());
        assert!(query("a=1&a=1").is_err());
        assert!(query("a=%ff").is_err());
        for wrong in ["256", "-1", "+1", "x", ""] {
            let query = query(&format!("a={}", wrong.replace('+', "%2B"))).unwrap();
            assert!(query.number::<u8>("a").is_err(), "{wrong}");
        }
    }
}
