use super::*;
use crate::image::recipe::Recipe;

fn wanted(cache: &Path) -> WantedImage {
    WantedImage {
        recipe: Recipe::embedded(),
        suite: "bookworm".into(),
        cache: cache.into(),
        of_root: None,
        mirror: None,
    }
}

/// An image's files, small ones, of a recipe for a release.
fn image(folder: &Path, recipe: &str, suite: &str) -> ImagePaths {
    let manifest = serde_json::json!({ "recipe": recipe, "suite": suite, "packages": {} });
    for (part, _) in PARTS {
        fs::write(folder.join(part), format!("the {part}")).unwrap();
    }
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    ImagePaths::in_folder(folder)
}

fn exported(recipe: &str, suite: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), recipe, suite);
    let mut archive = Vec::new();
    let mut last = 0.0;
    export(&image, &mut archive, Path::new("x.tar"), |made| {
        last = made.fraction;
    })
    .unwrap();
    assert!((last - 1.0).abs() < 1e-9, "{last}");
    archive
}

async fn imported(cache: &Path, archive: &[u8]) -> Result<Imported, String> {
    let made = import(&wanted(cache), archive, Path::new("x.tar"), |_| ()).await;
    let left = fs::read_dir(cache).unwrap().flatten();
    let building = |entry: fs::DirEntry| {
        entry
            .file_name()
            .into_string()
            .unwrap()
            .starts_with("building")
    };
    assert!(!left.into_iter().any(building), "something is left");
    made.map_err(|error| error.to_string())
}

/// An archive of these entries, whatever they are.
fn tar_of(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = header(content.len() as u64);
        header.set_entry_type(*kind);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_exported_is_imported_byte_for_byte() {
    let cache = tempfile::tempdir().unwrap();
    let wanted = wanted(cache.path());
    assert_eq!(wanted.built(), None);
    let archive = exported(&wanted.hash(), "bookworm");
    let imported = imported(cache.path(), &archive).await.unwrap();
    assert_eq!(Some(&imported.image), wanted.built().as_ref());
    assert_eq!(
        fs::read(&imported.image.root).unwrap(),
        b"the root.squashfs"
    );
    // Of another release it is stored as what it is.
    let trixie = wanted.recipe.hash("trixie");
    let archive = exported(&trixie, "trixie");
    let imported = super::import(&wanted, &archive[..], Path::new("x.tar"), |_| ()).await;
    let imported = imported.unwrap();
    assert_eq!(imported.suite, "trixie");
    assert_eq!(
        imported.image.root,
        cache.path().join(trixie).join("root.squashfs")
    );
}

#[tokio::test(flavor = "current_thread")]
async fn an_image_of_another_recipe_is_refused_and_the_old_one_stays() {
    let cache = tempfile::tempdir().unwrap();
    let wanted = wanted(cache.path());
    imported(cache.path(), &exported(&wanted.hash(), "bookworm"))
        .await
        .unwrap();
    let recipe = "0123456789abcdef\u{1b}[2J";
    let error = imported(cache.path(), &exported(recipe, "bookworm"))
        .await
        .unwrap_err();
    assert!(
        error.starts_with("the image in x.tar (recipe 0123456789abcdef"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'), "{error}");
    assert!(wanted.built().is_some());
}

#[tokio::test(flavor = "current_thread")]
async fn a_damaged_or_foreign_archive_is_refused_with_the_reason() {
    let cache = tempfile::tempdir().unwrap();
    let hash = wanted(cache.path()).hash();
    let whole = exported(&hash, "bookworm");
    let mut flipped = whole.clone();
    // In the content of the kernel, the second entry.
    let at = flipped
        .windows(10)
        .position(|bytes| bytes == b"the kernel")
        .unwrap();
    flipped[at] ^= 1;
    let manifest = ("manifest.json", EntryType::Regular, &b"{}"[..]);
    let mut large = header(2 << 20);
    large.set_path("manifest.json").unwrap();
    large.set_cksum();
    let cases: [(&str, Vec<u8>); 7] = [
        ("do not have the sums", flipped),
        ("cannot read an image from x.tar", whole[..512].to_vec()),
        ("x.tar", whole[..1540].to_vec()),
        ("manifest.json is missing from it", vec![0; 4096]),
        (
            "kernel is missing from it",
            tar_of(&[manifest, ("kernels", EntryType::Regular, b"")]),
        ),
        (
            "kernel in it is not a file",
            tar_of(&[manifest, ("kernel", EntryType::Symlink, b"")]),
        ),
        ("more than 1 MiB", large.as_bytes().to_vec()),
    ];
    for (said, archive) in cases {
        let error = imported(cache.path(), &archive).await.unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
    assert_eq!(wanted(cache.path()).built(), None);
}
