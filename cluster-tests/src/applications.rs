//! Applications as they sign in to MQTT: by an access key and its code. Written from the vendor's document, without the
//! platform's code.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use fulmar_mqtt::Version;
use fulmar_mqtt::packet::Connect;
use serde_json::json;

use crate::raw;
use crate::rest::Rest;

/// Seconds, within what applications may have.
const KEEP_ALIVE_S: u16 = 120;

/// What an application signs in with.
#[derive(Debug, Clone)]
pub struct Code {
    pub access_key: String,
    pub access_code: String,
}

impl Code {
    /// A new one; the one before is void. `force_disconnect`: its connections are closed.
    ///
    /// # Errors
    /// It is refused.
    pub async fn make(rest: &Rest, force_disconnect: bool) -> Result<Code> {
        let body = json!({ "type": "MQTT", "force_disconnect": force_disconnect });
        let made = rest.call("POST", "/auth/accesscode", Some(&body)).await?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {made}"));
        Ok(Code { access_key: text("access_key")?, access_code: text("access_code")? })
    }

    /// What it sends to be let in. MQTT 3.1.1, signed now.
    #[must_use]
    pub fn connect(&self, client_id: &str) -> Connect {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut connect = raw::connect(Version::V311, client_id);
        connect.keep_alive_s = KEEP_ALIVE_S;
        connect.username = Some(format!("accessKey={}|timestamp={now}|instanceId=", self.access_key).into());
        connect.password = Some(self.access_code.clone().into_bytes().into());
        connect
    }
}
