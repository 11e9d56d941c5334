//! The dashboard: one page with its style and its script in it, that asks the API like anybody else. Nothing in it
//! comes from elsewhere, and the policy that goes with it lets the browser load and run nothing but this.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::access::Rights;

const PAGE: &str = include_str!("page.html");
/// Where the page is told what may be changed.
const CHANGES: &str = "data-changes=\"\"";
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");

/// The page, for those who come by one address.
#[derive(Clone, Debug)]
pub(super) struct Dashboard {
    page: String,
    policy: HeaderValue,
}

impl Dashboard {
    pub(super) fn new(rights: &Rights) -> Dashboard {
        let changes = format!("data-changes=\"{}\"", rights.changes());
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            hash(inline("script")),
            hash(inline("style")),
        );
        Dashboard {
            page: PAGE.replacen(CHANGES, &changes, 1),
            policy: HeaderValue::try_from(policy).expect("it is ASCII"),
        }
    }

    pub(super) fn response(&self) -> Response {
        let policy = (header::CONTENT_SECURITY_POLICY, self.policy.clone());
        let fixed = [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
            (PERMISSIONS, "camera=(), geolocation=(), microphone=()"),
        ];
        ([policy], fixed, Html(self.page.clone())).into_response()
    }
}

/// What is between the tags of the page's only element of this name.
fn inline(name: &str) -> &'static str {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let after = PAGE.split_once(&begin).expect("the page has it").1;
    after.split_once(&end).expect("it ends").0
}

/// As a policy names it.
fn hash(text: &str) -> String {
    let hash = STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!("sha256-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_the_page_and_nothing_comes_from_elsewhere() {
        for tag in ["<script>", "</script>", "<style>", "</style>", CHANGES] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        for forbidden in [
            "src=",
            "@import",
            "url(",
            "style=",
            " onclick=",
            "innerHTML",
            "eval(",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        // The icon names the language of its drawing.
        let elsewhere = PAGE.replace("xmlns='http://www.w3.org/2000/svg'", "");
        let elsewhere = elsewhere.replace("\"http://www.w3.org/2000/svg\"", "");
        assert!(!elsewhere.contains("://"), "another site");
    }

    #[test]
    fn the_page_is_told_what_may_be_changed_and_the_policy_fits_it() {
        for (rights, word) in [(Rights::All, "all"), (Rights::Reading, "none")] {
            let dashboard = Dashboard::new(&rights);
            let page = &dashboard.page;
            assert!(page.contains(&format!("data-changes=\"{word}\"")), "{page}");
            let policy = dashboard.policy.to_str().unwrap();
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(policy.matches("sha256-").count(), 2, "{policy}");
        }
        // echo -n abc | openssl dgst -sha256 -binary | base64
        assert_eq!(
            hash("abc"),
            "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
        );
    }
}
