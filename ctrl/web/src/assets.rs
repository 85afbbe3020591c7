//! The page's files, which are part of the program: [`router`].
//!
//! They are written by hand and served as they are. Nothing in them may turn text of a guest or a file
//! into markup or code: all text goes in by `textContent`.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! assets {
    ($($path:literal $kind:ident $file:literal;)+) => {
        /// Path, media type and content of each file.
        pub(crate) const ASSETS: &[(&str, &str, &str)] = &[
            $(($path, $kind, include_str!(concat!("../assets/", $file))),)+
        ];
    };
}

assets! {
    "/" HTML "index.html";
    "/style.css" CSS "style.css";
    "/favicon.svg" SVG "favicon.svg";
    "/js/main.js" JS "js/main.js";
    "/js/api.js" JS "js/api.js";
    "/js/dom.js" JS "js/dom.js";
    "/js/format.js" JS "js/format.js";
    "/js/fabric.js" JS "js/fabric.js";
    "/js/layout.js" JS "js/layout.js";
    "/js/aisle.js" JS "js/aisle.js";
    "/js/keys.js" JS "js/keys.js";
    "/js/list.js" JS "js/list.js";
    "/js/plot.js" JS "js/plot.js";
    "/js/panel.js" JS "js/panel.js";
    "/js/cable.js" JS "js/cable.js";
    "/js/switch.js" JS "js/switch.js";
    "/js/position.js" JS "js/position.js";
}

/// A route for each file.
pub(crate) fn router() -> Router {
    let mut router = Router::new();
    for (path, kind, content) in ASSETS {
        router = router.route(path, get(async || ([(CONTENT_TYPE, *kind)], *content)));
    }
    router
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The most bytes of all files together: the page opens at once over a slow `ssh -L`.
    const MOST_BYTES: usize = 150_000;

    fn files(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.insert(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let mut found = BTreeSet::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
        files(&folder, &mut found);
        let served: BTreeSet<String> = ASSETS.iter().map(|asset| asset.2.to_owned()).collect();
        assert_eq!(found.len(), ASSETS.len());
        assert!(found == served);
    }

    #[test]
    fn nothing_turns_text_into_markup_or_code() {
        for (path, _, content) in ASSETS {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "createContextualFragment",
                "DOMParser",
                "srcdoc",
                "eval(",
                "Function(",
                "setTimeout(\"",
                "setTimeout('",
                "javascript:",
                " onclick=",
                " style=\"",
            ] {
                assert!(!content.contains(word), "{path}: {word}");
            }
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_all_of_it_is_small() {
        let mut bytes = 0;
        for (path, _, content) in ASSETS {
            bytes += content.len();
            let own = content.replace("http://www.w3.org/", "");
            for word in ["http:", "https:", "url(//", "\"//", "@import"] {
                assert!(!own.contains(word), "{path}: {word}");
            }
        }
        assert!(bytes < MOST_BYTES, "{bytes} bytes");
    }

    #[test]
    fn modules_name_only_files_that_are_served() {
        for (path, kind, content) in ASSETS {
            if *kind != JS {
                continue;
            }
            for line in content.lines().filter(|line| line.contains(" from \"")) {
                let named = line.split('"').nth(1).unwrap();
                let named = named.replace("./", "/js/");
                let served = ASSETS.iter().any(|asset| asset.0 == named);
                assert!(served, "{path}: {named}");
            }
        }
    }
}
