//! Kubernetes' API server, as a pod finds it: two requests about one node.
//!
//! No pod is wired or unwired by what it says. Every request has a connection of its own and a time limit, the account's token
//! is read anew for each, and the certificate must be of the cluster's own authority.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::errors::with_source;

/// Where a pod has its account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long one request may take, the connection included.
const PATIENCE: Duration = Duration::from_secs(10);

/// The API server stores no object that is larger than 1.5 MiB as etcd has it; as JSON it is longer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// The API server of the cluster that this process is a pod of.
#[derive(Debug, Clone)]
pub struct ApiServer {
    address: SocketAddr,
    account: PathBuf,
}

/// Why there is no answer, or none that helps.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// This process is no pod, or nobody has told it whose node it is on.
    #[error("{0} is not in the environment, which a pod has it from")]
    NoPod(&'static str),
    /// The environment names the API server in a way that is not a pod's.
    #[error("the environment has {name}={value}, and a pod's has {wanted} there")]
    Odd {
        /// The variable.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// The account's token or the authority's certificate is missing.
    #[error("{path} cannot be used: {reason}")]
    Account {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Nobody answers, or not who should.
    #[error("{server} does not answer: {reason}")]
    Unreachable {
        /// Host and port.
        server: String,
        /// Why.
        reason: String,
    },
    /// The account has no right to do this.
    #[error("{server} forbids the daemon's account to {what} (status {status}): {said}")]
    Forbidden {
        /// Host and port.
        server: String,
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// In the server's words.
        said: String,
    },
    /// The object is another by now than what a patch was made for.
    #[error("the node was changed meanwhile: {0}")]
    Conflict(String),
    /// Any other answer.
    #[error("{server} answers with status {status} to: {what}: {said}")]
    Refused {
        /// Host and port.
        server: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// In the server's words.
        said: String,
    },
}

impl ApiServer {
    /// The one that the environment of a pod names.
    ///
    /// # Errors
    /// [`ApiError::NoPod`] or [`ApiError::Odd`] if it names none.
    pub fn of_this_pod() -> Result<Self, ApiError> {
        // The kubelet gives every pod the service's address; names are not looked up, which a static program cannot.
        let address = SocketAddr::new(
            parsed("KUBERNETES_SERVICE_HOST", "an IP address")?,
            parsed("KUBERNETES_SERVICE_PORT", "a port")?,
        );
        Ok(ApiServer { address, account: ACCOUNT.into() })
    }

    /// The node as it is.
    ///
    /// # Errors
    /// Any of [`ApiError`] but a conflict.
    pub async fn node(&self, name: &str) -> Result<Value, ApiError> {
        self.ask(Method::GET, name, None).await
    }

    /// Changes the node by a JSON patch (RFC 6902): all of it, or nothing.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] if one of its tests failed.
    pub async fn patch_node(&self, name: &str, patch: &Value) -> Result<(), ApiError> {
        self.ask(Method::PATCH, name, Some(patch)).await.map(drop)
    }

    async fn ask(&self, method: Method, name: &str, patch: Option<&Value>) -> Result<Value, ApiError> {
        tokio::time::timeout(PATIENCE, self.exchange(method, name, patch))
            .await
            .map_err(|_| self.unreachable(format!("nothing within {PATIENCE:?}")))?
    }

    async fn exchange(&self, method: Method, name: &str, patch: Option<&Value>) -> Result<Value, ApiError> {
        let what = format!("{} nodes/{name}", method.as_str().to_ascii_lowercase());
        let (token, tls) = (self.token()?, self.tls()?);
        let broken = |e: &(dyn std::error::Error + 'static)| self.unreachable(with_source(e));
        let stream = TcpStream::connect(self.address).await.map_err(|e| broken(&e))?;
        let stream = tls.connect(ServerName::from(self.address.ip()), stream).await.map_err(|e| broken(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        // Ends by itself once the answer is read or the sender dropped.
        tokio::spawn(connection);
        let body = patch.map(|patch| Bytes::from(patch.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/nodes/{name}"))
            .header(header::HOST, self.authority())
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("dotfour-ipamd/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json-patch+json")
            .body(Full::new(body))
            .map_err(|e| broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| broken(&*e))?;
        let answer: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        Err(self.refusal(status, what, &answer))
    }

    fn refusal(&self, status: StatusCode, what: String, answer: &Value) -> ApiError {
        let (server, code) = (self.authority(), status.as_u16());
        let said = answer.get("message").and_then(Value::as_str).unwrap_or("nothing more").to_owned();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                ApiError::Forbidden { server, what, status: code, said }
            }
            // A test that fails is 422, a race with another writer 409.
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => ApiError::Conflict(said),
            _ => ApiError::Refused { server, what, status: code, said },
        }
    }

    fn token(&self) -> Result<String, ApiError> {
        let path = self.account.join("token");
        let token = fs::read_to_string(&path).map_err(|e| unusable(&path, &e))?;
        Ok(token.trim().to_owned())
    }

    /// Trusts whom the cluster's own authority vouches for, and nobody else.
    fn tls(&self) -> Result<TlsConnector, ApiError> {
        let path = self.account.join("ca.crt");
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|e| unusable(&path, &e))? {
            roots.add(certificate.map_err(|e| unusable(&path, &e))?).map_err(|e| unusable(&path, &e))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&path, &e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Host and port, as a URL has them.
    fn authority(&self) -> String {
        self.address.to_string()
    }

    fn unreachable(&self, reason: String) -> ApiError {
        ApiError::Unreachable { server: self.authority(), reason }
    }
}

fn unusable(path: &Path, why: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::Account { path: path.display().to_string(), reason: with_source(why) }
}

fn parsed<T: FromStr>(name: &'static str, wanted: &'static str) -> Result<T, ApiError> {
    let value = variable(name)?;
    value.parse().map_err(|_| ApiError::Odd { name, value, wanted })
}

/// A variable of the environment that is there and says something.
pub(crate) fn variable(name: &'static str) -> Result<String, ApiError> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(ApiError::NoPod(name))
}
