//! A server of Google Cloud Storage's JSON API, in this process: objects in memory, uploads as the real client sends them.
//!
//! It does what the service does as far as a writer can tell: single-shot uploads in two or three parts, resumable
//! sessions that keep whole quanta of a body that was cut, preconditions, CRC32C given before, after or beside the data,
//! reads with ranges, listing and deletion, and the answers for what is missing or forbidden. The control API (gRPC),
//! MD5 and old generations of objects are not here.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value, json};

use message::{Range, Reply, Request, insert_of, media, name_of, parts, problem};

use super::wire::{Head, Serving, base64, from_percent, read_body, read_whole, to_percent};

mod message;

/// What a session keeps of a body that was cut is a multiple of this, as the service documents.
pub(crate) const QUANTUM_BYTES: usize = 256 * 1024;
/// Fields of an object that an upload may set.
const SETTABLE: [&str; 7] = [
    "contentType",
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "customTime",
    "metadata",
];

/// The server, which ends when this is dropped.
pub(crate) struct Gcs {
    serving: Serving,
    state: Arc<Mutex<State>>,
}

/// An object as it lies there.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// What was uploaded.
    pub(crate) bytes: Vec<u8>,
    /// Custom metadata.
    pub(crate) metadata: BTreeMap<String, String>,
    /// The media type that was given.
    pub(crate) content_type: String,
    /// Its generation: larger than that of every object stored before.
    pub(crate) generation: u64,
    /// What the service says of it, as JSON.
    pub(crate) resource: Value,
}

/// A request that came, and what was answered; status 0 where the connection was gone before.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) head: Head,
    /// What it was for.
    pub(crate) purpose: Purpose,
    /// The status of the answer.
    pub(crate) status: u16,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Upload in one request.
    Single,
    /// Begin an upload in several.
    Begin,
    /// Go on with it.
    Continue,
    /// Ask how far it came.
    Query,
    /// Read an object, or what is known of it.
    Read,
    /// Anything else.
    Other,
}

/// Who may do anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone.
    Open,
    /// Nobody: each request is answered with 403.
    Refused,
    /// Whoever sends this bearer token; 401 for the others.
    Token(String),
}

struct State {
    buckets: Vec<String>,
    access: Access,
    /// What its clock says, if not the time.
    date: Option<String>,
    objects: BTreeMap<String, Object>,
    times_stored: HashMap<String, usize>,
    sessions: HashMap<u64, Session>,
    next_id: u64,
    asked: Vec<Asked>,
}

struct Session {
    name: String,
    insert: Value,
    if_generation: Option<u64>,
    data: Vec<u8>,
    /// Counts requests: a later one takes the session from one whose connection is about to break.
    turn: u64,
    finished: Option<Value>,
}

impl Gcs {
    /// Starts one on a free port, with one bucket.
    pub(crate) fn start(bucket: &str) -> Self {
        let state = Arc::new(Mutex::new(State {
            buckets: vec![bucket.to_owned()],
            access: Access::Open,
            date: None,
            objects: BTreeMap::new(),
            times_stored: HashMap::new(),
            sessions: HashMap::new(),
            next_id: 1,
            asked: Vec::new(),
        }));
        let shared = state.clone();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let serving = Serving::start(any, move |link| converse(&shared, link)).expect("a free port");
        Self { serving, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// The same as a client takes it for its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// An object of any bucket.
    pub(crate) fn object(&self, name: &str) -> Option<Object> {
        self.lock().objects.get(name).cloned()
    }

    /// The names of all objects, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    /// How many times an object was stored under a name, deleted or overwritten ones included.
    pub(crate) fn times_stored(&self, name: &str) -> usize {
        self.lock().times_stored.get(name).copied().unwrap_or(0)
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// How many requests there were for a purpose.
    pub(crate) fn count(&self, purpose: Purpose) -> usize {
        self.lock().asked.iter().filter(|asked| asked.purpose == purpose).count()
    }

    /// Stores an object, as some other writer would.
    pub(crate) fn plant(&self, bucket: &str, name: &str, bytes: &[u8]) {
        let insert = json!({ "contentType": "application/octet-stream" });
        self.lock().store(bucket, name, &insert, bytes.to_vec(), None).expect("no precondition");
    }

    /// Takes away an object, as some other program would.
    pub(crate) fn remove(&self, name: &str) {
        self.lock().objects.remove(name);
    }

    /// Says who may do anything from now on.
    pub(crate) fn set_access(&self, access: Access) {
        self.lock().access = access;
    }

    /// Sets its clock to a time and stops it, or lets it go with the machine's.
    pub(crate) fn set_date(&self, date: Option<String>) {
        self.lock().date = date;
    }

    /// Takes away all buckets, with what is in them.
    pub(crate) fn remove_buckets(&self) {
        let mut state = self.lock();
        state.buckets.clear();
        state.objects.clear();
    }

    /// Makes a bucket.
    pub(crate) fn create_bucket(&self, bucket: &str) {
        self.lock().buckets.push(bucket.to_owned());
    }

    /// Forgets all uploads that are under way, as the service does after a week: 410 from then on.
    pub(crate) fn expire_sessions(&self) {
        self.lock().sessions.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics with it")
}

/// One connection, from its first request to its end.
fn converse(state: &Mutex<State>, mut link: &TcpStream) -> io::Result<()> {
    let here = format!("http://{}", link.local_addr()?);
    let mut input = BufReader::with_capacity(64 * 1024, link);
    while let Some(head) = Head::read(&mut input)? {
        let place = {
            let mut state = lock(state);
            let purpose = purpose(&head);
            state.asked.push(Asked { head: head.clone(), purpose, status: 0 });
            state.asked.len() - 1
        };
        let request = Request::new(&head, &here);
        let reply = match request.session() {
            Some(id) => go_on(state, &request, id, &mut input)?,
            None => {
                let body = read_whole(&mut input, head.request_extent())?;
                let mut state = lock(state);
                state.check_access(&head).and_then(|()| state.answer(&request, &body))
            }
        };
        let reply = reply.unwrap_or_else(|refusal| refusal);
        let date = {
            let mut state = lock(state);
            state.asked[place].status = reply.head.status();
            state.date.clone().unwrap_or_else(|| rfc9110(jiff::Timestamp::now()))
        };
        // Only an answer to HEAD says how long a body is that does not follow.
        let length = reply.head.header("content-length").is_none().then_some(reply.body.len());
        let with_length = length.iter().fold(reply.head, |head, length| head.with("Content-Length", length));
        with_length.with("Date", date).write_to(link)?;
        link.write_all(&reply.body)?;
    }
    Ok(())
}

/// A time as HTTP tells it.
pub(crate) fn rfc9110(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn purpose(head: &Head) -> Purpose {
    let target = head.target();
    let is_upload = target.starts_with("/upload/");
    match head.method() {
        "POST" if target.contains("uploadType=resumable") => Purpose::Begin,
        "POST" if is_upload => Purpose::Single,
        "PUT"
            if is_upload
                && head.header("content-range").is_some_and(|range| range.starts_with("bytes */")) =>
        {
            Purpose::Query
        }
        "PUT" if is_upload => Purpose::Continue,
        "GET" | "HEAD" => Purpose::Read,
        _ => Purpose::Other,
    }
}

/// Reads the body of a session's request into the session, as it comes, and answers.
fn go_on(
    state: &Mutex<State>,
    request: &Request<'_>,
    id: u64,
    input: &mut BufReader<&TcpStream>,
) -> io::Result<Result<Reply, Reply>> {
    let extent = request.head.request_extent();
    let began = lock(state).begin_turn(request, id);
    let (range, turn, mut skip) = match began {
        Ok(began) => began,
        Err(refusal) => {
            read_body(input, extent, |_| Ok(()))?;
            return Ok(Err(refusal));
        }
    };
    read_body(input, extent, |piece| {
        let skipped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
        skip -= u64::try_from(skipped).expect("a piece");
        let mut state = lock(state);
        let session = state.sessions.get_mut(&id).filter(|session| session.turn == turn);
        let session = session.ok_or(io::ErrorKind::ConnectionAborted)?;
        session.data.extend_from_slice(&piece[skipped..]);
        Ok(())
    })?;
    Ok(lock(state).end_turn(request, id, &range))
}

impl State {
    fn check_access(&self, head: &Head) -> Result<(), Reply> {
        match &self.access {
            Access::Open => Ok(()),
            Access::Refused => {
                Err(problem(403, "forbidden", "Caller does not have storage.objects.create access."))
            }
            Access::Token(token) => {
                let is_right = head.header("authorization") == Some(&format!("Bearer {token}"));
                is_right.then_some(()).ok_or_else(|| problem(401, "authError", "Invalid Credentials"))
            }
        }
    }

    fn check_bucket(&self, bucket: &str) -> Result<(), Reply> {
        let is_there = self.buckets.iter().any(|found| found == bucket);
        is_there.then_some(()).ok_or_else(|| problem(404, "notFound", "The specified bucket does not exist."))
    }

    fn check_generation(&self, name: &str, if_generation: Option<u64>) -> Result<(), Reply> {
        let now = self.objects.get(name).map_or(0, |object| object.generation);
        if if_generation.is_none_or(|wanted| wanted == now) {
            return Ok(());
        }
        Err(problem(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold."))
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Answers a request that is not part of a session.
    fn answer(&mut self, request: &Request<'_>, body: &[u8]) -> Result<Reply, Reply> {
        let path: Vec<String> = request.path.iter().map(|part| from_percent(part)).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (request.head.method(), path.as_slice()) {
            ("POST", ["upload", "storage", "v1", "b", bucket, "o"]) => {
                self.check_bucket(bucket)?;
                match request.query.get("uploadType").map(String::as_str) {
                    Some("resumable") => self.begin(request, bucket, body),
                    Some("multipart") => self.store_parts(request, bucket, body),
                    Some("media") => {
                        let media_type = request.head.header("content-type").unwrap_or_default();
                        self.store_single(request, bucket, &json!({ "contentType": media_type }), body)
                    }
                    _ => Err(problem(400, "invalid", "no such uploadType")),
                }
            }
            ("GET", ["storage", "v1", "b", bucket]) => {
                self.check_bucket(bucket)?;
                Ok(Reply::json(&json!({ "kind": "storage#bucket", "name": bucket, "location": "EU" })))
            }
            ("GET", ["storage", "v1", "b", bucket, "o"]) => {
                self.check_bucket(bucket)?;
                let prefix = request.query.get("prefix").map_or("", String::as_str);
                let found = self.objects.iter().filter(|(name, _)| name.starts_with(prefix));
                let items: Vec<&Value> = found.map(|(_, object)| &object.resource).collect();
                Ok(Reply::json(&json!({ "kind": "storage#objects", "items": items })))
            }
            (method, ["storage", "v1", "b", bucket, "o", name @ ..])
            | (method, ["download", "storage", "v1", "b", bucket, "o", name @ ..]) => {
                self.check_bucket(bucket)?;
                let name = name.join("/");
                self.check_generation(&name, request.number("ifGenerationMatch"))?;
                let missing = || problem(404, "notFound", &format!("No such object: {bucket}/{name}"));
                if method == "DELETE" {
                    self.objects.remove(&name).ok_or_else(missing)?;
                    return Ok(Reply { head: Head::answer(204), body: Vec::new() });
                }
                let object = self.objects.get(&name).ok_or_else(missing)?;
                if request.number("generation").is_some_and(|wanted| wanted != object.generation) {
                    return Err(missing());
                }
                let is_media = request.query.get("alt").is_some_and(|form| form == "media");
                if is_media { media(request.head, object) } else { Ok(Reply::json(&object.resource)) }
            }
            // As a signed URL names it.
            ("GET" | "HEAD", [bucket, name @ ..]) if !name.is_empty() => {
                self.check_bucket(bucket)?;
                let object = self.objects.get(&name.join("/"));
                media(request.head, object.ok_or_else(|| problem(404, "notFound", "NoSuchKey"))?)
            }
            _ => Err(problem(404, "notFound", "Not Found")),
        }
    }

    /// Opens a session for an upload in several requests.
    fn begin(&mut self, request: &Request<'_>, bucket: &str, body: &[u8]) -> Result<Reply, Reply> {
        let insert = insert_of(if body.is_empty() { b"{}" } else { body })?;
        let name = name_of(request, &insert)?;
        let if_generation = request.number("ifGenerationMatch");
        self.check_generation(&name, if_generation)?;
        let id = self.new_id();
        let (here, path) = (request.here, to_percent(&name, false));
        let location =
            format!("{here}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={path}&upload_id={id}");
        let (data, finished) = (Vec::new(), None);
        self.sessions.insert(id, Session { name, insert, if_generation, data, turn: 0, finished });
        let head = Head::answer(200).with("Location", location).with("X-GUploader-UploadID", id);
        Ok(Reply { head, body: Vec::new() })
    }

    /// Takes the session for a request: its range, the turn that it has, and how many bytes of it are there already.
    fn begin_turn(&mut self, request: &Request<'_>, id: u64) -> Result<(Range, u64, u64), Reply> {
        self.check_access(request.head)?;
        let expired = || problem(410, "gone", "The upload session is no longer there.");
        let bucket = request.path.get(4).copied().unwrap_or_default();
        self.check_bucket(bucket)?;
        if request.head.method() == "DELETE" {
            self.sessions.remove(&id).ok_or_else(expired)?;
            return Err(problem(499, "cancelled", "The upload was cancelled."));
        }
        let session = self.sessions.get_mut(&id).ok_or_else(expired)?;
        if let Some(resource) = &session.finished {
            return Err(Reply::json(resource));
        }
        let range = Range::parse(request.head.header("content-range"));
        let range = range.ok_or_else(|| problem(400, "invalid", "Failed to parse Content-Range header."))?;
        session.turn += 1;
        session.settle();
        let there = session.length();
        let skip = match &range {
            Range::Nothing { .. } => 0,
            Range::From { begin, .. } => there
                .checked_sub(*begin)
                .ok_or_else(|| problem(400, "invalid", "The range begins behind what was received."))?,
        };
        Ok((range, session.turn, skip))
    }

    /// Answers a request of a session whose body has come as a whole.
    fn end_turn(&mut self, request: &Request<'_>, id: u64, range: &Range) -> Result<Reply, Reply> {
        let expired = || problem(410, "gone", "The upload session is no longer there.");
        let session = self.sessions.get_mut(&id).ok_or_else(expired)?;
        if !range.is_complete(session.length()) {
            session.settle();
            let head = Head::answer(308);
            let last = session.length().checked_sub(1);
            let head = last.iter().fold(head, |head, last| head.with("Range", format!("bytes=0-{last}")));
            return Ok(Reply { head, body: Vec::new() });
        }
        let hash = request.head.header("x-goog-hash").and_then(|hash| hash.strip_prefix("crc32c="));
        if let Some(hash) = hash {
            session.insert["crc32c"] = hash.into();
        }
        let (name, insert, if_generation) =
            (session.name.clone(), session.insert.clone(), session.if_generation);
        let data = session.data.clone();
        let bucket = request.path.get(4).copied().unwrap_or_default();
        let resource = self.store(bucket, &name, &insert, data, if_generation)?;
        let session = self.sessions.get_mut(&id).expect("it was there");
        session.finished = Some(resource.clone());
        session.data = Vec::new();
        Ok(Reply::json(&resource))
    }

    /// Stores the second part of a body in parts; the first is the metadata, and a third may bring the checksum.
    fn store_parts(&mut self, request: &Request<'_>, bucket: &str, body: &[u8]) -> Result<Reply, Reply> {
        let bad = || problem(400, "badRequest", "Malformed multipart body.");
        let content_type = request.head.header("content-type").ok_or_else(bad)?;
        let (_, boundary) = content_type.split_once("boundary=").ok_or_else(bad)?;
        let parts = parts(body, boundary.trim_matches('"')).ok_or_else(bad)?;
        let (first, media, checksums) = match parts.as_slice() {
            [first, media] => (first, media, None),
            [first, media, checksums] => (first, media, Some(checksums)),
            _ => return Err(bad()),
        };
        let mut insert = insert_of(first.1)?;
        if let Some((_, checksums)) = checksums
            && let Some(crc32c) = insert_of(checksums)?.get("crc32c")
        {
            insert["crc32c"] = crc32c.clone();
        }
        if insert.get("contentType").is_none()
            && let Some(media_type) = media.0.header("content-type")
        {
            insert["contentType"] = media_type.into();
        }
        self.store_single(request, bucket, &insert, media.1)
    }

    fn store_single(
        &mut self,
        request: &Request<'_>,
        bucket: &str,
        insert: &Value,
        media: &[u8],
    ) -> Result<Reply, Reply> {
        let name = name_of(request, insert)?;
        let if_generation = request.number("ifGenerationMatch");
        self.store(bucket, &name, insert, media.to_vec(), if_generation)
            .map(|resource| Reply::json(&resource))
    }

    /// Stores an object, or says why not: its resource.
    fn store(
        &mut self,
        bucket: &str,
        name: &str,
        insert: &Value,
        bytes: Vec<u8>,
        if_generation: Option<u64>,
    ) -> Result<Value, Reply> {
        self.check_generation(name, if_generation)?;
        let crc32c = base64(&crc32c::crc32c(&bytes).to_be_bytes());
        if let Some(given) = insert.get("crc32c").and_then(Value::as_str)
            && given != crc32c
        {
            let message =
                format!("Provided CRC32C \"{given}\" doesn't match calculated CRC32C \"{crc32c}\".");
            return Err(problem(400, "invalid", &message));
        }
        let generation = 1_700_000_000_000_000 + self.new_id();
        let now = jiff::Timestamp::now().to_string();
        let mut resource = json!({
            "kind": "storage#object",
            "id": format!("{bucket}/{name}/{generation}"),
            "name": name,
            "bucket": bucket,
            "generation": generation.to_string(),
            "metageneration": "1",
            "storageClass": "STANDARD",
            "size": bytes.len().to_string(),
            "crc32c": crc32c,
            "etag": base64(&generation.to_be_bytes()),
            "timeCreated": now,
            "timeFinalized": now,
            "updated": now,
        });
        for field in SETTABLE {
            if let Some(value) = insert.get(field) {
                resource[field] = value.clone();
            }
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pairs = insert.get("metadata").and_then(Value::as_object).map(Map::iter);
        let metadata = pairs.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
        let content_type = insert.get("contentType").map(text).unwrap_or_default();
        let object = Object { bytes, metadata, content_type, generation, resource: resource.clone() };
        self.objects.insert(name.to_owned(), object);
        *self.times_stored.entry(name.to_owned()).or_default() += 1;
        Ok(resource)
    }
}

impl Session {
    fn length(&self) -> u64 {
        u64::try_from(self.data.len()).expect("it is in memory")
    }

    /// Forgets what is more than whole quanta.
    fn settle(&mut self) {
        self.data.truncate(self.data.len() / QUANTUM_BYTES * QUANTUM_BYTES);
    }
}
