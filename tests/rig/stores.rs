//! Object stores that other people wrote: moto's S3, Azurite's blobs, and `gcp-storage-emulator`, each started as a process of the
//! test's own.
//!
//! `SIDETAPE_MOTO`, `SIDETAPE_AZURITE` and `SIDETAPE_GCP_EMULATOR` name the programs `moto_server`, `azurite-blob` and
//! `gcp-storage-emulator` where they are not on the path. All keep all in memory and end with the test, however that ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::gcs::rfc9110;
use super::http::Answer;
use super::wire::{base64, from_base64, send, to_percent};
use super::{is_strict, wait_for};

/// Azurite's one account, as its manual has it.
pub(crate) const AZURITE_ACCOUNT: &str = "devstoreaccount1";
/// That account's key, which is no secret.
pub(crate) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A version of the service that Azurite knows.
const AZURE_VERSION: &str = "2021-12-02";

/// moto reads whose request it is, but checks no signature.
const ANYONE: (&str, &str) = (
    "Authorization",
    "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=any",
);

/// An object as a store gives it back.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its content.
    pub(crate) bytes: Vec<u8>,
    /// Custom metadata, names in lower case.
    pub(crate) metadata: BTreeMap<String, String>,
    /// All headers that came with it.
    pub(crate) head: String,
}

/// An S3 store: it takes any credentials.
pub(crate) struct Moto(Tethered);

impl Moto {
    /// Starts one; or nothing, after saying so, where it is not installed and need not be.
    pub(crate) fn start() -> Option<Self> {
        let program = program("SIDETAPE_MOTO", "moto_server")?;
        Some(Self(Tethered::start(&program, &["-H", "127.0.0.1", "-p", "0"])))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The same as a client takes it for its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Makes a bucket.
    pub(crate) fn create_bucket(&self, bucket: &str) {
        let answer = send(self.address(), "PUT", &format!("/{bucket}"), &[], b"").expect("an answer");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Reads an object.
    pub(crate) fn object(&self, bucket: &str, name: &str) -> Option<Found> {
        let target = format!("/{bucket}/{}", to_percent(name, true));
        let answer = send(self.address(), "GET", &target, &[ANYONE], b"").expect("an answer");
        found(answer, "x-amz-meta-")
    }

    /// The names of all objects, sorted.
    pub(crate) fn names(&self, bucket: &str) -> Vec<String> {
        all_pages("NextContinuationToken", "Key", |after| {
            let after = after.map(|token| format!("&continuation-token={}", to_percent(token, false)));
            let target = format!("/{bucket}?list-type=2{}", after.unwrap_or_default());
            send(self.address(), "GET", &target, &[ANYONE], b"").expect("an answer")
        })
    }
}

/// Google Cloud Storage by `gcp-storage-emulator`. It takes uploads of both kinds as the service does, but ignores
/// preconditions, and gives nothing back in a form that Google's crate reads.
pub(crate) struct GcpEmulator(Tethered);

impl GcpEmulator {
    /// Starts one with a bucket; or nothing, after saying so, where it is not installed and need not be, or this process
    /// may not listen on port 80: Google's crate leaves the port out of `Host`, from which the emulator makes addresses.
    pub(crate) fn start(bucket: &str) -> Option<Self> {
        let program = program("SIDETAPE_GCP_EMULATOR", "gcp-storage-emulator")?;
        let ip = Ipv4Addr::from(0x7f00_0000 | (std::process::id() & 0xff_ffff) | 0x1_0000);
        let address = SocketAddr::from((ip, 80));
        if let Err(error) = TcpListener::bind(address) {
            println!("gcp-storage-emulator cannot be tried: {address}: {error}");
            return None;
        }
        let options = [format!("--host={ip}"), format!("--default-bucket={bucket}")];
        let options = ["start", &options[0], "--port=80", "--in-memory", &options[1]];
        Some(Self(Tethered::start_at(&program, &options, address)))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Reads an object.
    pub(crate) fn object(&self, bucket: &str, name: &str) -> Option<Found> {
        let target = format!("/storage/v1/b/{bucket}/o/{}?alt=media", to_percent(name, false));
        found(send(self.address(), "GET", &target, &[], b"").expect("an answer"), "x-goog-meta-")
    }
}

/// An Azure store with one account, [`AZURITE_ACCOUNT`].
pub(crate) struct Azurite(Tethered);

impl Azurite {
    /// Starts one; or nothing, after saying so, where it is not installed and need not be.
    pub(crate) fn start() -> Option<Self> {
        let program = program("SIDETAPE_AZURITE", "azurite-blob")?;
        let at = ["--blobHost", "127.0.0.1", "--blobPort", "0"];
        // Without the last, a client newer than it is turned away for the version that it names.
        let options = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"];
        Some(Self(Tethered::start(&program, &[at.as_slice(), &options].concat())))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The account's address, as a client takes it for its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/{AZURITE_ACCOUNT}", self.address())
    }

    /// Makes a container that only the account may read.
    pub(crate) fn create_container(&self, container: &str) {
        let query = [("restype", "container")];
        let answer =
            self.ask(self.address(), "PUT", &format!("/{container}"), &query, &[], b"").expect("an answer");
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Reads a blob.
    pub(crate) fn object(&self, container: &str, name: &str) -> Option<Found> {
        let path = format!("/{container}/{}", to_percent(name, true));
        let answer = self.ask(self.address(), "GET", &path, &[], &[], b"").expect("an answer");
        found(answer, "x-ms-meta-")
    }

    /// The names of all blobs, sorted.
    pub(crate) fn names(&self, container: &str) -> Vec<String> {
        all_pages("NextMarker", "Name", |after| {
            let mut query = vec![("restype", "container"), ("comp", "list")];
            query.extend(after.map(|marker| ("marker", marker)));
            self.ask(self.address(), "GET", &format!("/{container}"), &query, &[], b"").expect("an answer")
        })
    }

    /// A token that lets its bearer do all with blobs until the end of the century: an account SAS, and its signature as it
    /// stands in it.
    pub(crate) fn shared_access_signature() -> (String, String) {
        let until = "2099-12-31T00:00:00Z";
        // Permissions, services, kinds of resources, start, end, addresses, protocols, version, encryption scope.
        let text = format!("{AZURITE_ACCOUNT}\nrwdlac\nb\nsco\n\n{until}\n\n\n{AZURE_VERSION}\n\n");
        let signature = to_percent(&sign(&text), false);
        let token = format!("sv={AZURE_VERSION}&ss=b&srt=sco&sp=rwdlac&se={until}&sig={signature}");
        (token, signature)
    }

    /// Asks as the account, by its shared key, directly or through a proxy at `to`. Headers are those that begin with
    /// `x-ms-`, in lower case.
    pub(crate) fn ask(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let date = rfc9110(jiff::Timestamp::now());
        let mut signed = BTreeMap::from([("x-ms-date", date.as_str()), ("x-ms-version", AZURE_VERSION)]);
        signed.extend(headers.iter().copied());
        let length = if body.is_empty() { String::new() } else { body.len().to_string() };
        // Encoding, language, length, MD5, type, date, four conditions and the range: one line each.
        let mut text = format!("{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n");
        for (name, value) in &signed {
            text += &format!("{name}:{value}\n");
        }
        text += &format!("/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}{path}");
        for (name, value) in query.iter().copied().collect::<BTreeMap<_, _>>() {
            text += &format!("\n{name}:{value}");
        }
        let signature = sign(&text);
        let authorization = format!("SharedKey {AZURITE_ACCOUNT}:{signature}");
        let mut headers: Vec<(&str, &str)> = signed.into_iter().collect();
        headers.push(("Authorization", &authorization));
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", to_percent(value, false));
        let pairs: Vec<String> = query.iter().map(pair).collect();
        let question = if pairs.is_empty() { "" } else { "?" };
        let target = format!("/{AZURITE_ACCOUNT}{path}{question}{}", pairs.join("&"));
        send(to, method, &target, &headers, body)
    }
}

/// Signs as Azurite's account.
fn sign(text: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(&from_base64(AZURITE_KEY)).expect("a key of any length");
    hmac.update(text.as_bytes());
    base64(&hmac.finalize().into_bytes())
}

/// Lists page after page, each of which is XML and may name the next.
fn all_pages(next: &str, item: &str, mut page: impl FnMut(Option<&str>) -> Answer) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let answer = page(after.as_deref());
        let text = String::from_utf8(answer.body).expect("XML");
        assert_eq!(answer.status, 200, "{text}");
        names.extend(elements(&text, item));
        after = elements(&text, next).into_iter().find(|token| !token.is_empty());
        if after.is_none() {
            names.sort();
            return names;
        }
    }
}

/// The texts of all elements of a name. None has another in it.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&begin).skip(1).filter_map(|text| text.split_once(&end));
    texts.map(|(text, _)| text.to_owned()).collect()
}

fn found(answer: Answer, prefix: &str) -> Option<Found> {
    if answer.status == 404 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}: {}", answer.head, String::from_utf8_lossy(&answer.body));
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let metadata = lines.filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        name.strip_prefix(prefix).map(|name| (name.to_owned(), value.to_owned()))
    });
    Some(Found { metadata: metadata.collect(), bytes: answer.body, head: answer.head })
}

/// The program that a variable names, or that is on the path; or nothing, after saying so.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        let message = format!("there is no {name} on the path, and {variable} is not set");
        assert!(!is_strict(), "{message}");
        println!("{message}");
    }
    found
}

/// A server in a process that ends with this one: a shell waits for the end of its input and kills it then.
struct Tethered {
    address: SocketAddr,
    shell: Child,
    input: Option<ChildStdin>,
}

impl Tethered {
    /// Starts a program that says on which port it listens.
    fn start(program: &Path, options: &[&str]) -> Self {
        let (shell, input, said) = Self::launch(program, options);
        let address = wait_for(&format!("{} to listen", program.display()), || {
            let said = said.lock().expect("nobody panics with it");
            // Azurite first says where it is going to listen: on port 0.
            said.split("http://127.0.0.1:").skip(1).find_map(|rest| {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                port.parse().ok().map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
            })
        });
        Self { address, shell, input }
    }

    /// Starts a program that listens where it was told to.
    fn start_at(program: &Path, options: &[&str], address: SocketAddr) -> Self {
        let (shell, input, _) = Self::launch(program, options);
        wait_for(&format!("{} to listen", program.display()), || TcpStream::connect(address).ok());
        Self { address, shell, input }
    }

    fn launch(program: &Path, options: &[&str]) -> (Child, Option<ChildStdin>, Arc<Mutex<String>>) {
        let script = "\"$0\" \"$@\" 2>&1 & cat >/dev/null; kill -9 $!";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().expect("a shell");
        let (input, output) = (shell.stdin.take(), shell.stdout.take().expect("it is piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let log = said.clone();
        // It goes on reading: a full pipe would stop the server.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                *log.lock().expect("nobody panics with it") += &(line + "\n");
            }
        });
        (shell, input, said)
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        drop(self.input.take());
        self.shell.wait().expect("it ends");
    }
}
