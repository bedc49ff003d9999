"""A Hugging Face Hub on loopback: the endpoints that pushing and pulling a model use, kept in memory.

    with LoopbackHub(users={"hf_token": "ana"}) as hub:
        HfApi(endpoint=hub.url, token="hf_token").create_repo("ana/model")

A user may write to the repositories of its own name alone, and read those of others that are not private. Weights and
pictures travel through LFS, everything else inside the commit, as on the Hub; a commit is all of its files or nothing.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Repository:
    """Commits, each a mapping of paths to contents, and the names that point at them."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit that holds `files` and nothing else; returns its name."""
        text = f"{len(self.commits)} {sorted((path, git_hash(content)) for path, content in files.items())}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's own name stands for."""
        named = self.branches | self.tags | {name: name for name in self.commits}
        return named.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """What the main branch holds."""
        return self.commits[self.branches["main"]]


@dataclass
class Cut:
    """A fault: the next `times` requests that match lose their connection after `after` bytes of the answer."""

    request: str
    times: int
    after: int | None


class LoopbackHub:
    """
    The server, in threads of this process.

    Args:
        users (`dict[str, str]`):
            Tokens and the users they belong to.
    """

    def __init__(self, users: dict[str, str]):
        self.users = users
        self.repositories: dict[str, Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cuts: list[Cut] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def cut(self, request: str, times: int = 1, after: int | None = None):
        """
        Cut the connection of the next requests that match the pattern, such as `"PUT .*/lfs/"`.

        Args:
            request (`str`):
                Regular expression searched for in `"METHOD path"`.
            times (`int`, defaults to 1):
                Requests to cut.
            after (`int`, *optional*):
                Bytes of the answer's body that still arrive. `None`: the request is not carried out at all.
        """
        self.cuts.append(Cut(request, times, after))

    def uploads(self) -> list[str]:
        """The requests so far that changed something."""
        return [line for line in self.requests if re.search(r"^PUT|/commit/|/tag/|/repos/create", line)]


class Refusal(Exception):
    """An answer with an error status, and the header by which clients tell what is missing."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    ROUTES = (
        ("GET", r"/api/mend", "mend"),  # not of the Hub: for a test in another process
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<digest>\w+)", "lfs_upload"),
        ("POST", r"/lfs/verify", "lfs_verify"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>[^/]+)", "tag"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?", "info"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self):
        self._answer("GET")

    def do_HEAD(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def log_message(self, *_):
        pass

    def _answer(self, method: str):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        cut = next((cut for cut in self.hub.cuts if cut.times and re.search(cut.request, self.hub.requests[-1])), None)
        if cut:
            cut.times -= 1
            if cut.after is None:
                return self._disconnect()
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, headers, content = self._route(method, path)
        except Refusal as refusal:
            status, content = refusal.status, json.dumps({"error": str(refusal)}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": str(refusal)}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
        self.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[: cut.after])
        if cut:
            self._disconnect()

    def _disconnect(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def _route(self, method: str, path: str) -> tuple[int, dict, bytes]:
        for route_method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if match and route_method == method:
                answer = getattr(self, name)(**match.groupdict())
                if isinstance(answer, tuple):
                    return answer
                return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        raise Refusal(404, f"{method} {path} is not an endpoint of the loopback Hub", "EntryNotFound")

    # who asks, and for what

    @property
    def user(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def repository(self, name: str, write: bool = False) -> Repository:
        owner, user = name.split("/")[0], self.user
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and user != owner):
            raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise Refusal(401, "Invalid username or password.")
        if write and user != owner:
            raise Refusal(403, f"Forbidden: {user} may not write to {owner}")
        return repository

    def files(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(repo)
        commit = repository.resolve(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit, repository.commits[commit]

    def mend(self) -> dict:
        self.hub.cuts.clear()
        return {}

    # push

    def create(self) -> dict:
        request = json.loads(self.body)
        owner = request.get("organization") or self.user
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        if self.user != owner:
            raise Refusal(403, f"You don't have the rights to create a model under the namespace {owner!r}")
        name = f"{owner}/{request['name']}"
        if name in self.hub.repositories:
            content = json.dumps({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            return 409, {"Content-Type": "application/json"}, content.encode()
        self.hub.repositories[name] = Repository(private=request.get("visibility") == "private")
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return {"url": f"{self.hub.url}/{name}", "name": name}

    def validate_yaml(self) -> dict:
        content = json.loads(self.body)["content"]
        errors = card_errors(content)
        answer = json.dumps({"errors": [{"message": message} for message in errors], "warnings": []}).encode()
        return 400 if errors else 200, {"Content-Type": "application/json"}, answer

    def preupload(self, repo: str, revision: str) -> dict:
        self.repository(repo, write=True)
        _, present = self.files(repo, revision)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": object_name(file["path"], present[file["path"]]) if file["path"] in present else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        return {"files": files}

    def lfs_batch(self, repo: str) -> dict:
        self.repository(repo, write=True)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.large_files:
                upload, verify = f"{self.hub.url}/lfs/{item['oid']}", f"{self.hub.url}/lfs/verify"
                item["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self, digest: str) -> dict:
        if hashlib.sha256(self.body).hexdigest() != digest:
            raise Refusal(400, "the content is not the one announced")
        self.hub.large_files[digest] = self.body
        return {}

    def lfs_verify(self) -> dict:
        request = json.loads(self.body)
        if len(self.hub.large_files.get(request["oid"], b"")) != request["size"]:
            raise Refusal(404, "no such object")
        return {}

    def commit(self, repo: str, revision: str) -> dict:
        repository = self.repository(repo, write=True)
        parent, files = self.files(repo, revision)
        files = dict(files)
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header" and value.get("parentCommit") not in (None, parent):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.large_files[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        name = repository.commit(files, revision)
        return {"commitOid": name, "commitUrl": f"{self.hub.url}/{repo}/commit/{name}"}

    def tag(self, repo: str, revision: str) -> dict:
        repository = self.repository(repo, write=True)
        tag = json.loads(self.body)["tag"]
        if tag in repository.tags:
            raise Refusal(409, f"Tag {tag} already exists")
        repository.tags[tag] = self.files(repo, revision)[0]
        return {}

    # pull

    def refs(self, repo: str) -> dict:
        repository = self.repository(repo)
        return {
            kind: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in named.items()]
            for kind, named in (("branches", repository.branches), ("tags", repository.tags), ("converts", {}))
        }

    def tree(self, repo: str, revision: str, folder: str | None) -> list[dict]:
        _, files = self.files(repo, revision)
        if folder:  # models hold none
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        entries = []
        for path, content in files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if path.endswith(LFS_SUFFIXES):
                entry["lfs"] = {"oid": object_name(path, content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def info(self, repo: str, revision: str | None) -> dict:
        commit, files = self.files(repo, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        private = self.repository(repo).private
        return {"id": repo, "modelId": repo, "sha": commit, "private": private, "siblings": siblings, "tags": []}

    def resolve(self, repo: str, revision: str, path: str) -> tuple[int, dict, bytes]:
        commit, files = self.files(repo, revision)
        if path not in files:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        content, name = files[path], object_name(path, files[path])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{name}"', "Accept-Ranges": "bytes"}
        if path.endswith(LFS_SUFFIXES):
            headers |= {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": len(content)}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return 206, headers, content[start:]
        return 200, headers, content


def git_hash(content: bytes) -> str:
    """The name git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def object_name(path: str, content: bytes) -> str:
    """The name the Hub gives it: a sha256 for large files."""
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS_SUFFIXES) else git_hash(content)


def card_errors(content: str) -> list[str]:
    """What the Hub refuses in the metadata of a card."""
    match = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
    if not match:
        return []
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"the metadata is not YAML: {error}"]
    errors = []
    for name, kind in (("license", str), ("library_name", str), ("pipeline_tag", str), ("tags", list)):
        if name in metadata and not isinstance(metadata[name], kind):
            errors.append(f'"{name}" must be a {kind.__name__}')
    for model in metadata.get("model-index") or []:
        if not isinstance(model.get("name"), str):
            errors.append('"model-index[0].name" is required')
        for result in model.get("results") or []:
            for group, names in (("task", ("type",)), ("dataset", ("type", "name")), (None, ("metrics",))):
                part = result if group is None else result.get(group) or {}
                errors += [f'"{group or "results"}.{name}" is required' for name in names if name not in part]
            for metric in result.get("metrics") or []:
                errors += [f'"metrics.{name}" is required' for name in ("type", "value") if name not in metric]
    return errors
