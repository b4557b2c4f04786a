//! What a file says it is, what it is, and what is odd about that.
//!
//! The tables are those of the system before this one. Where it would have called every upload odd, this one is milder:
//! the types that S3 and browsers give to what they do not know are no declaration.

const EXTENSION_POINTS: u32 = 30;
const MISMATCH_POINTS: u32 = 50;
const SIZE_POINTS: u32 = 30;

/// Extensions of what runs or is run by a server.
const SUSPICIOUS: [&str; 15] =
    ["php", "exe", "js", "jsp", "asp", "sh", "bat", "dll", "py", "vbs", "wsf", "pl", "scr", "ps1", "cmd"];

/// No declaration at all: S3's default and its like.
const UNDECLARED: [&str; 4] =
    ["", "binary/octet-stream", "application/octet-stream", "application/x-www-form-urlencoded"];

const PORTABLE_EXECUTABLE: &str = "application/vnd.microsoft.portable-executable";

/// Types a file with the extension may be declared as or look like.
const EXPECTED: [(&str, &[&str]); 10] = [
    ("js", &["application/javascript", "text/javascript"]),
    ("php", &["application/x-httpd-php"]),
    ("exe", &["application/x-msdownload", PORTABLE_EXECUTABLE]),
    ("dll", &["application/x-msdownload", PORTABLE_EXECUTABLE]),
    ("bat", &["application/x-msdos-program"]),
    ("sh", &["application/x-sh", "text/x-shellscript"]),
    ("py", &["text/x-python", "application/x-python-code"]),
    ("vbs", &["text/vbscript", "application/vbscript"]),
    ("html", &["text/html"]),
    ("txt", &["text/plain"]),
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Sizes that are normal for an extension, both ends included.
const SIZES: [(&str, u64, u64); 8] = [
    ("php", 100, 5 * MIB),
    ("js", 100, 2 * MIB),
    ("exe", 10 * KIB, 50 * MIB),
    ("dll", 10 * KIB, 50 * MIB),
    ("bat", 50, MIB),
    ("sh", 50, MIB),
    ("py", 50, 2 * MIB),
    ("vbs", 50, 512 * KIB),
];

/// How far a script's opening tag is looked for.
const HEAD_BYTES: usize = 1024;

/// What content shows.
#[derive(Clone, Copy, Debug)]
struct Sniffed {
    mime: &'static str,
    extension: &'static str,
    group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// Programs and scripts.
    Program,
    /// Pictures, sound, films, fonts.
    Media,
    /// Documents and archives; many documents are archives.
    Container,
    Text,
}

/// The type of a file, by name, declaration and content.
pub(super) struct Kind<'a> {
    extension: String,
    declared: Option<&'a str>,
    sniffed: Option<Sniffed>,
}

impl<'a> Kind<'a> {
    pub(super) fn of(name: &str, content_type: Option<&'a str>, content: &[u8]) -> Self {
        // Windows drops dots and spaces at the end of a name, so `a.exe.` is `a.exe`.
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default().trim_end_matches(['.', ' ']);
        let extension = file.rsplit_once('.').map_or("", |(_, e)| e).to_ascii_lowercase();
        let declared = content_type.map(|t| t.split(';').next().unwrap_or_default().trim());
        let declared = declared.filter(|t| !UNDECLARED.iter().any(|u| u.eq_ignore_ascii_case(t)));
        Self { extension, declared, sniffed: sniff(content) }
    }

    pub(super) fn sniffed_type(&self) -> Option<&'static str> {
        self.sniffed.map(|s| s.mime)
    }

    /// Whether the content is of this type.
    pub(super) fn looks_like(&self, mime: &str) -> bool {
        self.sniffed_type() == Some(mime)
    }

    /// The types whose signatures to look for: what the name says, what it is declared as and what it is.
    pub(super) fn script_types(&self) -> Vec<&str> {
        let by_declaration = self.declared.and_then(|t| {
            let (extension, _) = EXPECTED.iter().find(|(_, types)| types.iter().any(|e| e.eq_ignore_ascii_case(t)))?;
            Some(*extension)
        });
        let by_content = self.sniffed.map(|s| s.extension);
        [Some(&*self.extension), by_declaration, by_content].into_iter().flatten().map(signature_type).collect()
    }

    /// What is odd, with its points.
    pub(super) fn marks(&self, size: u64) -> Vec<(u32, String)> {
        let mut marks = Vec::new();
        let extension = &*self.extension;
        if SUSPICIOUS.contains(&extension) {
            marks.push((EXTENSION_POINTS, format!("extension .{extension}")));
        }
        marks.extend(self.mismatch().map(|what| (MISMATCH_POINTS, what)));
        if let Some((_, min, max)) = SIZES.iter().find(|(e, ..)| *e == extension)
            && !(*min..=*max).contains(&size)
        {
            marks.push((SIZE_POINTS, format!("{size} bytes are not {min} to {max}")));
        }
        marks
    }

    /// Name, declaration and content contradict each other.
    fn mismatch(&self) -> Option<String> {
        let extension = &*self.extension;
        let expected = EXPECTED.iter().find(|(e, _)| *e == extension).map(|(_, types)| *types);
        if let (Some(declared), Some(expected)) = (self.declared, expected)
            && !expected.iter().any(|e| e.eq_ignore_ascii_case(declared))
        {
            return Some(format!("declared as {declared}, but named .{extension}"));
        }
        let sniffed = self.sniffed?;
        if let Some(declared) = self.declared
            && sniffed.group != Group::Text
            && group_of_type(declared).is_some_and(|g| g != sniffed.group)
        {
            return Some(format!("declared as {declared}, but is {}", sniffed.mime));
        }
        let fits = match expected {
            // Texts look like one another.
            Some(expected) => sniffed.group == Group::Text || expected.contains(&sniffed.mime),
            None => match (group_of_extension(extension), sniffed.group) {
                (_, Group::Text) => true,
                (Some(named), is) => named == is,
                // A name that says nothing contradicts nothing.
                (None, _) => true,
            },
        };
        (!fits).then(|| format!("named .{extension}, but is {}", sniffed.mime))
    }
}

/// Types that share their signatures.
fn signature_type(extension: &str) -> &str {
    match extension {
        "dll" | "scr" | "com" | "sys" => "exe",
        "cmd" => "bat",
        "bash" | "ksh" | "zsh" => "sh",
        "mjs" | "cjs" => "js",
        "phtml" | "phar" | "php3" | "php4" | "php5" | "php7" => "php",
        "pyw" => "py",
        "vbe" | "wsf" => "vbs",
        other => other,
    }
}

fn sniff(content: &[u8]) -> Option<Sniffed> {
    let head = &content[..content.len().min(HEAD_BYTES)];
    let program = |mime, extension| Some(Sniffed { mime, extension, group: Group::Program });
    let text = head.trim_ascii_start();
    if memchr::memmem::find(head, b"<?php").is_some() && !head.contains(&0) {
        return program("application/x-httpd-php", "php");
    }
    if text.starts_with(b"#!") {
        let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
        let names = |word: &[u8]| memchr::memmem::find(line, word).is_some();
        return if names(b"python") {
            program("text/x-python", "py")
        } else if names(b"perl") {
            program("text/x-perl", "pl")
        } else if names(b"php") {
            program("application/x-httpd-php", "php")
        } else if names(b"node") {
            program("application/javascript", "js")
        } else {
            program("text/x-shellscript", "sh")
        };
    }
    let found = infer::get(content)?;
    let extension = found.extension();
    let group = group_of_extension(extension).or_else(|| group_of_type(found.mime_type())).unwrap_or(Group::Text);
    Some(Sniffed { mime: found.mime_type(), extension, group })
}

fn group_of_extension(extension: &str) -> Option<Group> {
    Some(match extension {
        "exe" | "dll" | "scr" | "com" | "sys" | "elf" | "so" | "mach" | "wasm" | "class" | "php" | "py" | "sh"
        | "pl" | "js" | "bat" | "cmd" | "ps1" | "vbs" => Group::Program,
        "jpg" | "jpeg" | "png" | "gif" | "webp" | "bmp" | "ico" | "tif" | "tiff" | "heic" | "heif" | "avif" | "psd"
        | "mp3" | "mp4" | "m4a" | "m4v" | "mov" | "mkv" | "avi" | "webm" | "mpg" | "mpeg" | "wav" | "flac" | "ogg"
        | "aac" | "woff" | "woff2" | "ttf" | "otf" => Group::Media,
        "pdf" | "rtf" | "doc" | "xls" | "ppt" | "docx" | "xlsx" | "pptx" | "odt" | "ods" | "odp" | "epub" | "mobi"
        | "zip" | "gz" | "tgz" | "tar" | "bz2" | "xz" | "7z" | "rar" | "zst" | "lz4" | "cab" | "iso" => {
            Group::Container
        }
        "txt" | "csv" | "md" | "log" | "json" | "xml" | "html" | "htm" | "yaml" | "yml" | "css" | "ini" | "conf" => {
            Group::Text
        }
        _ => return None,
    })
}

fn group_of_type(mime: &str) -> Option<Group> {
    let mime = mime.to_ascii_lowercase();
    let top = mime.split('/').next().unwrap_or_default();
    Some(match (top, &*mime) {
        (_, PORTABLE_EXECUTABLE | "application/x-msdownload" | "application/x-executable" | "application/x-sh") => {
            Group::Program
        }
        ("image", "image/svg+xml") => Group::Text,
        ("image" | "audio" | "video" | "font", _) => Group::Media,
        ("text", _) | (_, "application/json" | "application/xml") => Group::Text,
        (
            _,
            "application/pdf" | "application/zip" | "application/gzip" | "application/x-tar" | "application/msword",
        ) => Group::Container,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(name: &str, declared: &str, content: &[u8], size: u64) -> u32 {
        let declared = (!declared.is_empty()).then_some(declared);
        Kind::of(name, declared, content).marks(size).iter().map(|(points, _)| points).sum()
    }

    const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0";
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    #[test]
    fn points_are_given_for_extension_mismatch_and_size() {
        for (name, declared, content, size, expected) in [
            ("a.js", "text/javascript", &b"let a = 1;"[..], 4096, 30),
            ("a.js", "text/javascript; charset=utf-8", b"", 4096, 30),
            ("a.JS.", "", b"", 4096, 30),
            ("a.js", "", b"", 99, 60),
            ("a.js", "", b"", 100, 30),
            ("a.js", "", b"", 2 * MIB, 30),
            ("a.js", "", b"", 2 * MIB + 1, 60),
            ("a.js", "image/png", b"", 4096, 80),
            ("a.exe", "binary/octet-stream", EXE, 20_000, 30),
            ("a.exe", "", PNG, 20_000, 80),
            ("a.php", "", b"#!/bin/sh\n", 4096, 80),
            ("a.txt", "text/html", b"", 10, 50),
            ("a.txt", "", b"<?php eval($_GET[0]);", 10, 50),
            ("a.txt", "", b"#!/bin/sh\n", 10, 50),
            ("a.txt", "", b"<html><body>", 10, 0),
            ("photo.png", "image/png", PNG, 10, 0),
            ("photo.jpg", "image/jpeg", PNG, 10, 0),
            ("photo.png", "", EXE, 10, 50),
            ("photo", "image/png", EXE, 10, 50),
            ("photo.png", "", b"PK\x03\x04\x14\0\0\0\x08\0", 10, 50),
            ("report.docx", "", b"PK\x03\x04\x14\0\0\0\x08\0", 10, 0),
            ("program", "", EXE, 10, 0),
            ("folder.exe/readme", "", b"", 10, 0),
        ] {
            assert_eq!(score(name, declared, content, size), expected, "{name} {declared:?} {size}");
        }
    }

    #[test]
    fn signatures_follow_name_declaration_and_content() {
        let types = |name, declared, content| {
            Kind::of(name, declared, content).script_types().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(types("a.dll", None, EXE), ["exe", "exe"]);
        assert_eq!(types("a.jpg", Some("text/javascript"), b"<?php 1"), ["jpg", "js", "php"]);
        assert_eq!(types("a.cmd", None, b""), ["bat"]);
    }
}
