//! Creates the files for a nats-server with authentication: TLS certificates from a private certificate
//! authority, and credentials files in the form that `nsc` writes (operator → account → user).

use std::path::{Path, PathBuf};

use anyhow::Context;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use serde_json::{Value, json};

/// The keys of an operator and an account, for a server that requires credentials.
#[derive(Debug)]
pub struct NatsIdentity {
    account: KeyPair,
    folder: PathBuf,
    configuration: String,
}

impl NatsIdentity {
    /// Creates keys and certificates in `folder`, for a server on 127.0.0.1.
    ///
    /// # Errors
    /// Returns an error if a file can't be written.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        let (operator, account, system) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let none = json!(-1);
        let limits = json!({
            "subs": none, "data": none, "payload": none, "imports": none, "exports": none, "wildcards": true,
            "conn": none, "leaf": none, "mem_storage": none, "disk_storage": none, "streams": none,
             "consumer": none,
        });
        let operator_jwt = jwt(&operator, &operator, "operator", json!({"type": "operator", "version": 2}))?;
        let claims = json!({"type": "account", "version": 2, "limits": limits});
        let account_jwt = jwt(&operator, &account, "factory", claims)?;
        // JetStream needs a system account, even an unused one.
        let system_jwt = jwt(&operator, &system, "system", json!({"type": "account", "version": 2}))?;
        let (certificate, key) = certificates(folder)?;
        let configuration = format!(
            "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}\n\
             tls {{ cert_file: {certificate:?}, key_file: {key:?} }}\n",
            account = account.public_key(),
            system = system.public_key(),
        );
        Ok(Self { account, folder: folder.to_owned(), configuration })
    }

    /// Returns the lines for the server's configuration file.
    #[must_use]
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Returns the path of the CA certificate, with which clients verify the server.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Writes a credentials file for a user with all rights in the account, and returns its path.
    ///
    /// # Errors
    /// Returns an error if the file can't be written.
    pub fn credentials(&self, name: &str) -> anyhow::Result<PathBuf> {
        let user = KeyPair::new_user();
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        let token = jwt(&self.account, &user, name, claims)?;
        let seed = user.seed().context("a seed")?;
        let path = self.folder.join(format!("{name}.creds"));
        std::fs::write(
            &path,
            format!(
                "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ),
        )?;
        Ok(path)
    }
}

/// Returns a NATS JWT with `claims` about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> anyhow::Result<String> {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let subject = subject.public_key();
    let claims = json!({"jti": subject, "iat": 1, "iss": issuer.public_key(), "sub": subject, "name": name,
     "nats": claims});
    let signed = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// Writes `ca.crt` and the server's certificate and key, and returns the paths of the latter two.
fn certificates(folder: &Path) -> anyhow::Result<(String, String)> {
    let ca_key = rcgen::KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(folder.join("ca.crt"), ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate()?;
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let certificate = server.signed_by(&key, &issuer)?;
    let (at, key_at) = (folder.join("server.crt"), folder.join("server.key"));
    std::fs::write(&at, certificate.pem())?;
    std::fs::write(&key_at, key.serialize_pem())?;
    Ok((at.display().to_string(), key_at.display().to_string()))
}
