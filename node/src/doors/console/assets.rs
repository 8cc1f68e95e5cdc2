//! The files of the console, which are part of the program.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest as _, Sha256};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What is shown first.
const INDEX: (&str, &str) = (HTML, include_str!("assets/index.html"));

macro_rules! files {
    ($($name:literal $kind:ident,)*) => {
        &[$(($name, ($kind, include_str!(concat!("assets/", $name))))),*]
    };
}

/// Name, and type and content.
const FILES: &[(&str, (&str, &str))] = files! {
    "api.js" SCRIPT,
    "app.js" SCRIPT,
    "base.css" CSS,
    "chart.js" SCRIPT,
    "command.js" SCRIPT,
    "dom.js" SCRIPT,
    "editor.js" SCRIPT,
    "icon.svg" SVG,
    "mqtt.js" SCRIPT,
    "page-access.js" SCRIPT,
    "page-alarms.js" SCRIPT,
    "page-audit.js" SCRIPT,
    "page-backups.js" SCRIPT,
    "page-bans.js" SCRIPT,
    "page-client.js" SCRIPT,
    "page-device.js" SCRIPT,
    "page-devices.js" SCRIPT,
    "page-overview.js" SCRIPT,
    "page-product.js" SCRIPT,
    "page-products.js" SCRIPT,
    "page-retained.js" SCRIPT,
    "page-rule.js" SCRIPT,
    "page-rules.js" SCRIPT,
    "page-sensoro.js" SCRIPT,
    "page-session.js" SCRIPT,
    "page-sessions.js" SCRIPT,
    "page-settings.js" SCRIPT,
    "page-task.js" SCRIPT,
    "page-tasks.js" SCRIPT,
    "page-topics.js" SCRIPT,
    "page-trace.js" SCRIPT,
    "page-users.js" SCRIPT,
    "page-why.js" SCRIPT,
    "parts.css" CSS,
    "ui.js" SCRIPT,
};

/// A file, with what it is known by while it stays as it is.
struct File {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
    /// With its quotes.
    tag: String,
}

impl File {
    fn new(name: &'static str, (kind, content): (&'static str, &'static str)) -> File {
        let digest = Sha256::digest(content.as_bytes());
        let digits: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        File { name, kind, content, tag: format!("\"{digits}\"") }
    }
}

/// The index without a name, then the others.
static ALL: LazyLock<Vec<File>> = LazyLock::new(|| {
    let others = FILES.iter().map(|(name, file)| File::new(name, *file));
    std::iter::once(File::new("", INDEX)).chain(others).collect()
});

fn find(path: &str) -> Option<&'static File> {
    let name = match path {
        "/" | "/index.html" => "",
        _ => path.strip_prefix("/assets/").filter(|name| !name.is_empty())?,
    };
    ALL.iter().find(|file| file.name == name)
}

/// The file at a path after `/console`. A browser asks each time whether it has changed.
pub(super) fn serve(path: &str, request: &HttpRequest) -> Option<HttpResponse> {
    let file = find(path)?;
    let known = request.headers().get_all(header::IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok());
    let unchanged = known.flat_map(|tags| tags.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == file.tag);
    let mut response = if unchanged { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::ETAG, file.tag.as_str())).insert_header((header::CACHE_CONTROL, "no-cache"));
    if unchanged {
        return Some(response.finish());
    }
    Some(response.insert_header((header::CONTENT_TYPE, file.kind)).body(file.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_here_and_asks_for_nothing_elsewhere() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/doors/console/assets");
        let mut there: Vec<String> = std::fs::read_dir(dir)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| name != "index.html")
            .collect();
        there.sort_unstable();
        let mut known: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        known.sort_unstable();
        assert_eq!(known, there, "the files of the folder and those of the program");
        for file in ALL.iter() {
            assert!(file.content.lines().count() <= 500, "{} is longer than 500 lines", file.name);
            let elsewhere = file.content.replace("http://www.w3.org/2000/svg", "");
            for loads in ["src=\"http", "href=\"http", "import 'http", "from 'http", "url(http", "@import", "//cdn"] {
                assert!(!elsewhere.contains(loads), "{} has {loads}", file.name);
            }
            for inline in ["innerHTML", "outerHTML", "document.write", "eval(", " style=\"", " onclick=\"", "<script>"]
            {
                assert!(!file.content.contains(inline), "{} has {inline}", file.name);
            }
        }
    }

    #[test]
    fn a_module_imports_only_what_there_is() {
        for file in ALL.iter().filter(|file| file.kind == SCRIPT) {
            for line in file.content.lines().filter(|line| line.starts_with("import ")) {
                let name = line.split('\'').nth(1).and_then(|path| path.strip_prefix("./")).expect("a file beside it");
                assert!(find(&format!("/assets/{name}")).is_some(), "{} imports {name}", file.name);
            }
        }
        assert!(find("/").is_some() && find("").is_none() && find("/assets/").is_none());
        assert!(find("/assets/../mod.rs").is_none());
    }
}
