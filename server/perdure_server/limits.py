"""● core · Every bound of ingress, admin API, node and command line by name, and what happens when it is full.

Those of the processors are in perdure_processor/model/limits.py.
"""

from __future__ import annotations

from perdure_processor.model.limits import (
    ATTEMPTS_MAX,
    KIB,
    LOG_DISK_FREE_BYTES_MIN,
    LOG_SEGMENT_BYTES,
    MESSAGE_SIZE_MAX,
    METADATA_PROPOSE_TIMEOUT_S,
    MIB,
    PAYLOAD_MAX,
    RECORD_MAX,
    UNSENT_BYTES_MAX,
)

# -- ingress: connections ----------------------------------------------------
# When full, a new connection gets 503 and is closed.
INGRESS_CONNECTIONS_MAX = 16_384
# Connections that the kernel holds for us between two turns of the loop; beyond it a client tries again.
INGRESS_ACCEPT_BACKLOG = 1024
# A connection that says nothing for this long between requests is closed.
INGRESS_KEEP_ALIVE_S = 120
# A request must arrive within this time, plus the time that its bytes need at the slowest rate we serve; else 408.
INGRESS_READ_GRACE_S = 30
INGRESS_READ_BYTES_PER_S_MIN = 8 * KIB
# A client that takes nothing of its answer for this long is cut off.
INGRESS_WRITE_STALL_S = 60
# How long we listen after a last answer, so that the client reads it before it meets a reset.
INGRESS_LINGER_S = 3
# How often the connections are looked at for these times.
INGRESS_SWEEP_S = 1.0
# After the grace of a stop: the time for the last 503s to leave.
INGRESS_STOP_FLUSH_S = 1.0

# -- ingress: requests -------------------------------------------------------
# A larger body gets 413 (PERDURE_INGRESS__REQUEST_SIZE_LIMIT).
INGRESS_BODY_BYTES_MAX = 32 * MIB
# Of all requests that are not answered yet, in slices over the first; when full: 429 and the connection closes.
INGRESS_BUFFERED_BYTES_MAX = 512 * MIB
# Over these a request gets 431 or 414 and the connection stays usable …
INGRESS_HEAD_BYTES_MAX = 128 * KIB
INGRESS_HEADERS_MAX = 128
INGRESS_TARGET_BYTES_MAX = 32 * KIB
# … up to these, which are the parser's: over them the connection is closed after the answer.
INGRESS_HEAD_BYTES_DISCARDED_MAX = 512 * KIB
INGRESS_HEADERS_DISCARDED_MAX = 4096
# A body that nobody wants is read away up to here, so that its sender sees the answer; then we hang up.
INGRESS_BODY_BYTES_DISCARDED_MAX = 256 * MIB
# The parser keeps what follows a finished request out of our sight: it is never given more than this at once.
INGRESS_PARSE_SLICE_BYTES = 32 * KIB
# While a request is answered, this much of the next ones is read ahead; then the socket is not read.
INGRESS_PIPELINED_BYTES_MAX = 64 * KIB
# Over this many parameters the request is refused (400): nothing here needs more than two.
INGRESS_QUERY_FIELDS_MAX = 100
# A body that names an invocation; parsing more JSON than this (413) would hold up everyone else's requests.
INGRESS_TARGET_BODY_BYTES_MAX = 64 * KIB
# What a client is told to wait before it tries again, when we are overloaded or without a leader.
INGRESS_RETRY_AFTER_S = 1
# How often the dispatcher looks for requests that are to be asked about again.
REASK_SWEEP_S = 0.25
# Lines and names kept ready as bytes; the least used is built again.
STATUS_LINES_REMEMBERED = 256
CONTENT_TYPES_REMEMBERED = 256
HEADER_NAMES_REMEMBERED = 1024

# -- admin API ---------------------------------------------------------------
# A larger body is refused with 413.
ADMIN_BODY_BYTES_MAX = 2 * MIB
# The body of a state patch, where a byte of state takes up to four: larger is refused with 413. Taking JSON apart
# stops everything else for the time it takes.
ADMIN_STATE_BODY_BYTES_MAX = 8 * MIB
# Smaller answers are not worth compressing.
ADMIN_COMPRESS_BYTES_MIN = 1 * KIB
# How long a stop waits for requests under way, and for a scrape of the node port; then they are cut off.
ADMIN_STOP_GRACE_S = 2.0
NODE_PORT_STOP_GRACE_S = 1.0
# Headers and metadata pairs of one deployment, each; more are refused.
DEPLOYMENT_PAIRS_MAX = 64
# Longer addresses are mistakes, and refused.
DEPLOYMENT_URI_LENGTH_MAX = 2048
# Registrations whose endpoint is being asked; beyond it 429.
DISCOVERIES_MAX = 64
# An endpoint that has not told its manifest by then is not registered; a registration answers within 10 s.
DISCOVERY_TIMEOUT_S = 9.0
# Tries within the timeout; the pauses double.
DISCOVERY_TRIES_MAX = 5
DISCOVERY_FIRST_PAUSE_S = 0.1
# A manifest of thousands of handlers with schemas fits; more is no manifest.
MANIFEST_BYTES_MAX = 8 * MIB
# One handler's JSON schema, as text; a larger one is refused, because all of a manifest is one record.
SCHEMA_BYTES_MAX = 256 * KIB
# How much of an unexpected answer's body is shown.
DISCOVERY_EXCERPT_BYTES_MAX = 512
# Rows of one list, unless asked for fewer or more; beyond the maximum the question is refused.
INVOCATIONS_LISTED_DEFAULT = 100
INVOCATIONS_LISTED_MAX = 1000
# Invocations that one batch request may name, and how many of them are under way at a time.
BATCH_INVOCATIONS_MAX = 1000
BATCH_AT_ONCE_MAX = 64
# A signed request is valid for at least so long.
IDENTITY_VALIDITY_MS_MIN = 1_000
# SQL: queries at once (the next is told 429), memory of each beside the rows under way (a query that needs more fails),
# and the longest it may take, its client's reading included; then its connection is cut.
QUERIES_AT_ONCE_MAX = 4
QUERY_MEMORY_MAX = 256 * MIB
QUERY_SECONDS_MAX = 600.0
# Rows that a query reads from a store at a time and works on as one batch, or fewer if they have this many bytes.
QUERY_PAGE_ROWS = 256
QUERY_BATCH_ROWS = 1024
QUERY_BATCH_BYTES = 4 * MIB
# How long it works before it pauses for as long.
QUERY_SLICE_S = 0.001
# Times beyond the year 9999 are shown as its last moment.
QUERY_TIME_DISPLAYED_MAX_MS = 253_402_300_799_999
# A long scan gives way to requests after this many rows.
QUERY_ROWS_PER_TURN = 200

# -- node --------------------------------------------------------------------
# What waits at a stop is answered within this, then told to come back.
NODE_STOP_GRACE_S = 5.0
# How often the node looks at its disk and its log.
NODE_WATCH_S = 1.0
# With less free on the disk new requests get 503 (PERDURE_STORAGE__DISK_FREE_MIN): what was accepted is finished.
DISK_FREE_BYTES_MIN = 192 * MIB

# -- settings: a value beyond is refused at the start ------------------------
CONCURRENCY_LIMIT_MAX = 1_000_000
# A message is stored as a command, and once more as somebody's answer: one command must carry both.
MESSAGE_SIZE_LIMIT_MAX = PAYLOAD_MAX // 2
# State that is sent along is queued for the deployment at once, beside the input of the call.
EAGER_STATE_SIZE_LIMIT_MAX = UNSENT_BYTES_MAX // 2
# Expired rows are swept by at most one record per partition and second (correctness 22).
CLEANUP_INTERVAL_MS_MIN = 1_000
# More than any machine has; the bounds only keep typing errors from looking like settings.
MEMORY_LIMIT_BYTES_MAX = 1 << 50
DISK_FREE_LIMIT_BYTES_MAX = 1 << 40
FSYNC_INTERVAL_MS_MAX = 60_000
RETRY_FACTOR_MAX = 1000.0
NAME_LENGTH_MAX = 255
# Longer waits than this are typing errors, and their due dates would leave what a date can hold.
DURATION_MS_MAX = 1000 * 365 * 86_400_000
# No sensible duration is longer; the bound keeps hostile numbers short.
DURATION_TEXT_LENGTH_MAX = 100
# A configuration is a page of text; what is much longer is some other file.
CONFIG_FILE_BYTES_MAX = 1 * MIB
# How much of a wrong value an error message repeats.
CONFIG_SHOWN_CHARACTERS_MAX = 80

# -- command line ------------------------------------------------------------
# After these the command says that the server cannot be reached, or does not answer.
CLI_CONNECT_TIMEOUT_S = 3.0
CLI_ANSWER_TIMEOUT_S = 30.0
# Lists are limited by the server; what is longer is no answer of an admin API.
CLI_ANSWER_BYTES_MAX = 64 * MIB
# How much of an answer that is none is shown.
CLI_SHOWN_BYTES_MAX = 500

assert INGRESS_HEAD_BYTES_MAX < INGRESS_HEAD_BYTES_DISCARDED_MAX
assert INGRESS_HEADERS_MAX < INGRESS_HEADERS_DISCARDED_MAX
assert INGRESS_TARGET_BYTES_MAX < INGRESS_HEAD_BYTES_MAX
# The largest body becomes a message, and several of them are taken at a time.
assert INGRESS_BODY_BYTES_MAX <= MESSAGE_SIZE_LIMIT_MAX < INGRESS_BUFFERED_BYTES_MAX
assert INGRESS_BODY_BYTES_MAX < MESSAGE_SIZE_MAX
assert ATTEMPTS_MAX <= CONCURRENCY_LIMIT_MAX
# One handler's schema is far from filling the record that holds a manifest.
assert 2 * SCHEMA_BYTES_MAX < RECORD_MAX
assert INVOCATIONS_LISTED_DEFAULT <= INVOCATIONS_LISTED_MAX
# A registration is answered, whatever comes of it, before the command line gives up.
assert DISCOVERY_TIMEOUT_S + METADATA_PROPOSE_TIMEOUT_S < CLI_ANSWER_TIMEOUT_S
# New requests are refused before the log has to refuse what the accepted ones record.
assert DISK_FREE_BYTES_MIN > LOG_DISK_FREE_BYTES_MIN + LOG_SEGMENT_BYTES
