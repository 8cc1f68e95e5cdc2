//! Records that a node creates when it starts, if they are not there: from a TOML file with the tables `[[app]]`,
//! `[[product]]`, `[[sensoro_app]]`, `[[device]]`, `[[user]]`, `[[access_key]]` and `[[access_code]]`. Their keys are the
//! members of the REST API; `KEY_file` names a file whose first line is the value.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::input::Input;
use super::{Error, NewAccessCode, NewAccessKey, NewDevice, NewProduct, NewSensoroApp, NewUser, Operations};

/// Between two tries while the cluster takes no changes.
const RETRY: Duration = Duration::from_millis(500);

/// Ends the name of a key that names a file.
const FILE: &str = "_file";

/// What is wrong with a file of records. Names file, table and key; shows no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}{message}")]
pub struct ImportError {
    pub file: String,
    /// As in `device[0] `; empty where no table is to blame.
    pub place: String,
    pub message: String,
}

/// What a file asks for.
#[derive(Debug, Clone, Default)]
pub struct Seed {
    file: String,
    /// With the id where one is given.
    apps: Vec<(Option<String>, String)>,
    products: Vec<NewProduct>,
    devices: Vec<NewDevice>,
    sensoro_apps: Vec<NewSensoroApp>,
    users: Vec<NewUser>,
    access_keys: Vec<NewAccessKey>,
    access_codes: Vec<NewAccessCode>,
}

impl Seed {
    /// # Errors
    /// The first thing that is wrong with the file.
    pub fn load(path: &Path) -> Result<Seed, ImportError> {
        let file = path.display().to_string();
        let wrong = |message: String| ImportError { file: file.clone(), place: String::new(), message };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        Seed::read(&text, &file)
    }

    fn read(text: &str, file: &str) -> Result<Seed, ImportError> {
        let wrong =
            |place: &str, message: String| ImportError { file: file.to_owned(), place: place.to_owned(), message };
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            // Its own text would show the line, which may hold a secret.
            let line = error.span().map_or(1, |span| text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1);
            wrong("", format!("line {line}: {}", error.message()))
        })?;
        let value = serde_json::to_value(table).map_err(|error| wrong("", error.to_string()))?;
        let mut seed = Seed { file: file.to_owned(), ..Seed::default() };
        for (table, elements) in value.as_object().into_iter().flatten() {
            let Some(elements) = elements.as_array() else {
                return Err(wrong("", format!("{table} is not a list of tables; write [[{table}]]")));
            };
            for (index, element) in elements.iter().enumerate() {
                let place = format!("{table}[{index}] ");
                let element = with_files(element).map_err(|message| wrong(&place, message))?;
                seed.add(table, &element).map_err(|error| wrong(&place, error.to_string()))?;
            }
        }
        Ok(seed)
    }

    fn add(&mut self, table: &str, element: &Value) -> Result<(), Error> {
        let input = &Input::of(element)?;
        match table {
            "app" => self.apps.push((input.text("app_id")?, input.required("app_name")?)),
            "product" => self.products.push(NewProduct::read(input)?),
            "device" => self.devices.push(NewDevice::read(input)?),
            "sensoro_app" => self.sensoro_apps.push(NewSensoroApp::read(input)?),
            "user" => self.users.push(NewUser::read(input)?),
            "access_key" => self.access_keys.push(NewAccessKey::read(input)?),
            "access_code" => self.access_codes.push(NewAccessCode::read(input)?),
            _ => {
                let known = "app, product, device, sensoro_app, user, access_key or access_code";
                return Err(Error::invalid("the table", format!("must be {known}")));
            }
        }
        match input.unasked() {
            Some(key) => Err(Error::invalid(&key, "is not a key of this table")),
            None => Ok(()),
        }
    }
}

/// The element with what its files hold in place of their names.
fn with_files(value: &Value) -> Result<Value, String> {
    let Value::Object(members) = value else { return Ok(value.clone()) };
    let mut read = Map::new();
    for (name, value) in members {
        let (name, value) = match (name.strip_suffix(FILE), value) {
            (Some(short), Value::String(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("{name} names {path}, which cannot be read: {error}"))?;
                (short, Value::String(text.lines().next().unwrap_or_default().trim().to_owned()))
            }
            _ => (name.as_str(), with_files(value)?),
        };
        if read.insert(name.to_owned(), value).is_some() {
            return Err(format!("{name} is given beside {name}{FILE}; choose one"));
        }
    }
    Ok(Value::Object(read))
}

/// What is there already is left as it is. Otherwise the place is named.
fn made<T>(table: &str, index: usize, made: Result<T, Error>) -> Result<(), (String, Error)> {
    match made {
        Ok(_) | Err(Error::Exists { .. }) => Ok(()),
        Err(error) => Err((format!("{table}[{index}] "), error)),
    }
}

impl Operations {
    /// Creates what is not there. Harmless if repeated, and if several nodes do it at once.
    ///
    /// # Errors
    /// What could not be created. While the cluster takes no changes it waits.
    pub async fn import(&self, seed: &Seed) -> Result<(), ImportError> {
        loop {
            match self.import_once(seed).await {
                Ok(()) => return Ok(()),
                Err((_, Error::Unavailable)) => tokio::time::sleep(RETRY).await,
                Err((place, error)) => {
                    return Err(ImportError { file: seed.file.clone(), place, message: error.to_string() });
                }
            }
        }
    }

    async fn import_once(&self, seed: &Seed) -> Result<(), (String, Error)> {
        for (index, (id, name)) in seed.apps.iter().enumerate() {
            // Without an id the name must do, or each start would make another.
            if id.is_some() || !self.read(|registry| registry.apps().any(|app| *app.record.name == **name)) {
                made("app", index, self.create_app(id.as_deref(), name).await)?;
            }
        }
        for (index, new) in seed.products.iter().enumerate() {
            let named = |id: &String| self.read(|registry| registry.product(id).is_some());
            if !new.id.as_ref().is_some_and(named) {
                made("product", index, self.create_product(new).await)?;
            }
        }
        for (index, new) in seed.sensoro_apps.iter().enumerate() {
            made("sensoro_app", index, self.create_sensoro_app(new).await)?;
        }
        for (index, new) in seed.devices.iter().enumerate() {
            if self.read(|registry| registry.device_of(&new.product_id, &new.node_id).is_none()) {
                made("device", index, self.create_device(new).await)?;
            }
        }
        for (index, new) in seed.users.iter().enumerate() {
            // Hashing takes long: not for users that are there.
            if self.read(|registry| registry.user(&new.name).is_none()) {
                made("user", index, self.create_user(new).await)?;
            }
        }
        for (index, new) in seed.access_keys.iter().enumerate() {
            made("access_key", index, self.create_access_key(new).await)?;
        }
        for (index, new) in seed.access_codes.iter().enumerate() {
            made("access_code", index, self.add_access_code(new).await)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_every_table_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "12345678\nnot this\n").expect("written");
        let text = format!(
            "[[app]]\napp_name = \"a\"\n[[product]]\nproduct_id = \"p\"\nname = \"n\"\ndialect = \"aliyun\"\n\
             topics = [{{ topic = \"user/get\", access = \"sub\" }}]\n\
             [[device]]\nproduct_id = \"p\"\nnode_id = \"d\"\nauth_info = {{ secret_file = {:?} }}\n\
             [[sensoro_app]]\nqos = 1\n[[user]]\nname = \"u\"\npassword = \"12345678\"\nrole = \"admin\"\n\
             [[access_key]]\nuser = \"u\"\n\
             [[access_code]]\ntype = \"MQTT\"\naccess_key = \"k\"\naccess_code = \"12345678\"\n",
            secret.display().to_string()
        );
        let seed = Seed::read(&text, "f").expect("a seed");
        assert_eq!(seed.devices[0].secret.as_ref().map(fulmar_platform::Secret::expose), Some("12345678"));
        assert_eq!(seed.products[0].topics.len(), 1);
        let counts = [seed.apps.len(), seed.sensoro_apps.len(), seed.users.len(), seed.access_keys.len()];
        assert_eq!((counts, seed.access_codes.len()), ([1; 4], 1));
    }

    #[test]
    fn errors_name_file_table_and_key() {
        for (text, wanted) in [
            ("[[device]]\nproduct_id = \"p\"\n", "f: device[0] node_id is required"),
            ("[[device]]\nproduct_id = \"p\"\nnode_id = 1\n", "f: device[0] node_id must be a string"),
            ("[[app]]\napp_name = \"a\"\nnmae = 1\n", "f: app[0] nmae is not a key of this table"),
            (
                "[[apps]]\n",
                "f: apps[0] the table must be app, product, device, sensoro_app, user, access_key or access_code",
            ),
            ("[app]\napp_name = \"a\"\n", "f: app is not a list of tables; write [[app]]"),
            (
                "[[user]]\nname = \"u\"\npassword = \"x\"\nrole = \"root\"\n",
                "f: user[0] role must be viewer or operator or admin",
            ),
            (
                "[[access_key]]\nuser = \"u\"\nsecret_key = \"a\"\nsecret_key_file = \"/dev/null\"\n",
                "f: access_key[0] secret_key is given beside secret_key_file; choose one",
            ),
        ] {
            assert_eq!(Seed::read(text, "f").expect_err("it is wrong").to_string(), wanted, "{text}");
        }
        let error = Seed::read("[[user]]\npassword = secret\n", "f").expect_err("no TOML").to_string();
        assert!(error.starts_with("f: line 2: ") && !error.contains("= secret"), "{error}");
        let error = Seed::read("[[user]]\npassword_file = \"/nowhere/x\"\n", "f").expect_err("no file").to_string();
        assert!(error.starts_with("f: user[0] password_file names /nowhere/x, which cannot be read"), "{error}");
    }
}
