"""● core · Every bound of the processors by name, what happens when it is full, and how the bounds relate.

Those of ingress, admin and command line are in perdure_server/limits.py.  What a protocol or a format fixes (type
codes, versions, sizes of headers) is no bound of ours and stands where it is spoken.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# -- records -----------------------------------------------------------------
# No record is larger: a broker's default limit is 1 MB.  A larger command travels in parts.
RECORD_MAX = 768 * KIB
PART_PAYLOAD_MAX = RECORD_MAX - 4 * KIB
# One command may carry this many bytes in all (its parts together); beyond it the request is refused (413).
PAYLOAD_MAX = 72 * MIB
# One read of the log, one transaction, one write of the store.
RECORDS_PER_BATCH_MAX = 256
# Rows one apply may touch; more work leaves a cursor and goes on with the next command (correctness 27).
ROWS_MAX = 4096

# -- the embedded log --------------------------------------------------------
# One file of the log; the disk holds two from the first start: the active one and the reserve.
LOG_SEGMENT_BYTES = 16 * MIB
# Bytes of one frame's records: what one write and one sync may take; the rest waits for the next frame.
LOG_FRAME_BYTES_MAX = 2 * MIB
# Bytes waiting to be written; beyond it appends are Refused("queue full").
LOG_QUEUE_BYTES_MAX = 384 * MIB
# A segment takes any frame, with the positions of this many partitions carried into it.
LOG_PARTITIONS_MAX = 65_536
# What one read returns at most, beyond its first record; the reader comes again.
LOG_READ_BYTES_MAX = 4 * MIB
# Records of one partition this near to each other are fetched by one system call.
LOG_READ_WINDOW_BYTES = 64 * KIB
# A new segment is written and synced in pieces of this size, so that the log's own syncs get between them.
LOG_ZEROS_BYTES = 1 * MIB
# Must be free on the disk after a new segment, else appends are refused: the stores still have to flush.
LOG_DISK_FREE_BYTES_MIN = 64 * MIB
# After the disk was found full, it is asked again at the first append after this long.
LOG_RESERVE_RETRY_S = 1.0

# -- stores ------------------------------------------------------------------
# Data read, kept in memory for all stores of a process together; the least used goes.
STORE_BLOCK_CACHE_BYTES = 32 * MIB
# Data written and not yet in files, of all stores together; beyond it RocksDB flushes the largest memtable.
STORE_WRITE_BUFFERS_BYTES = 64 * MIB
# One store's memtable; at this size it goes to a file in the background. As large as what the processor flushes
# (FLUSH_BYTES): that looks for room on the disk first, RocksDB's own flush does not, and stops the store without.
STORE_MEMTABLE_BYTES = 64 * MIB
# Files that one store keeps open; beyond it, they are closed and opened again.
STORE_OPEN_FILES_MAX = 128
# RocksDB's own diagnostic log: this much, this many times; the oldest goes.
STORE_INFO_LOG_BYTES_MAX = 1 * MIB
STORE_INFO_LOG_FILES_MAX = 2
# Memory for fewer reads of files that do not have the key: 10 bits let one in a hundred through.
STORE_BLOOM_BITS_PER_KEY = 10
# Free on the disk beyond what is to be flushed, for RocksDB's own files; with less the flush is put off, because one
# that finds the disk full is an error after which RocksDB takes nothing more.
STORE_FLUSH_ROOM_BYTES = 4 * MIB
# Decoded rows of running invocations, and as many locks, kept from batch to batch; forgotten all at once when full.
STORE_ROWS_CACHED_MAX = 8_192
# Keys of objects kept as bytes; the least used is built again.
OBJECT_KEYS_REMEMBERED = 4096
# The store is flushed, and the log trimmed behind it, after this many bytes or this long.
FLUSH_BYTES = 64 * MIB
FLUSH_MS = 30_000

# -- what is registered ------------------------------------------------------
# Deployments kept at once; the next registration is refused (429) until one is removed.
DEPLOYMENTS_MAX = 4096
# Records of one partition that an operator may have skipped; more mean that something else is wrong.
SKIPS_PER_PARTITION_MAX = 1024
# Answers remembered for doubled appends; an older copy is judged again, and finds its version gone.
METADATA_ANSWERS_KEPT = 128
# One proposal, its repeated appends and conflicts included, is answered within this; then it is Unavailable.
METADATA_PROPOSE_TIMEOUT_S = 8.0
# How often a proposer decides anew because another node's command came first; then it is Unavailable.
METADATA_CONFLICTS_MAX = 16
# Records of one read of the metadata log; the reader comes again.
METADATA_RECORDS_PER_READ_MAX = 64
# The store is flushed, and the log trimmed behind it, after this many records or FLUSH_MS: the embedded
# log keeps one file for all partitions, so a metadata record that is not trimmed keeps everything after it.
METADATA_RECORDS_PER_FLUSH = 64
# Pause after a read that found nothing before the log's end, and between appends whose outcome is unknown.
METADATA_RETRY_PAUSE_S = 0.05

# -- requests ----------------------------------------------------------------
# A command older than this is refused as expired, so a doubled append cannot act later (correctness 3).
REQUEST_HORIZON_MS = 120_000
# Proof of a request outlives the horizon, whatever the retention says (correctness 3, 17).
REPLY_KEEP_MS = 2 * REQUEST_HORIZON_MS
# Requests that one invocation remembers, those of earlier lives of its id included; beyond it a new life has to wait.
REQUESTS_KNOWN_MAX = 4096
# Of the waiters, so many are told with one record, and so many bytes at least one of them; the others with the next.
ANSWERS_PER_RECORD_MAX = 256
ANSWER_BYTES_PER_RECORD_MAX = 8 * MIB
# Sleeps of one invocation whose timers go when it ends; those beyond it stay until they are due, and do nothing then.
SLEEPS_LISTED_MAX = 1_024
# Calls of a killed invocation that are killed with one record; the others with the next.
KILLS_PER_RECORD_MAX = 256
# Journal events kept of one invocation (failed attempts, pauses, suspensions); the oldest gives way to the next.
EVENTS_MAX = 128
# Handlers that may wait for one promise; the next one's get fails with 429.
PROMISE_WAITERS_MAX = 1_024
# Entries and bytes of a journal that restart-as-new copies in one record; a longer prefix is refused (422).
RESTART_ENTRIES_MAX = 20_000
RESTART_BYTES_MAX = 64 * MIB
# Names in the state that an operator gives to a key: all are written by one record, which is all that may be touched;
# more are refused (413). A state with more is too large to be edited by version (422).
STATE_PATCH_NAMES_MAX = ROWS_MAX
# State patches that wait for their turn on one key; the next one is refused (429).
STATE_PATCHES_WAITING_MAX = 1_024
# So many bytes of a state patch count as one row.
STATE_PATCH_BYTES_PER_ROW = 4 * KIB
# Parts of a command whose last part never came are kept so long; more than a log that accepts parts takes.
PARTS_KEEP_MS = 5 * REQUEST_HORIZON_MS
# Waiters on one invocation (attached clients and callers); beyond it the next one is told to come later.
SINKS_MAX = 4096
# Requests waiting at one ingress node; beyond it 429.
WAITING_REQUESTS_MAX = 16_384
# Bytes handed to the log by the ingress and not yet acknowledged; beyond it 429.
INGRESS_BYTES_IN_FLIGHT_MAX = 256 * MIB
# The first time a silent invocation is asked about again, and the longest pause between two such questions.
REASK_AFTER_MS = 1_000
REASK_AFTER_MS_MAX = 60_000

# -- attempts ----------------------------------------------------------------
# Attempts running at once on a node; further ones wait for a slot (PERDURE_INVOKER__CONCURRENCY_LIMIT).
ATTEMPTS_MAX = 1_000
# Of those, one deployment may hold this many, so that a dead one starves nobody.
ATTEMPTS_PER_DEPLOYMENT_MAX = 600
# Failed attempts of which a node remembers when they began and who served them; the oldest is forgotten.
ATTEMPTS_REMEMBERED = 4096
# Attempts waiting for a slot in memory; what exceeds it waits in the `active` table and is scanned later.
ATTEMPTS_WAITING_MAX = 20_000
# The largest message a deployment may send: the 32 MiB message size limit and 256 KiB for its envelope.
MESSAGE_ENVELOPE_MAX = 256 * KIB
MESSAGE_SIZE_MAX = 32 * MIB + MESSAGE_ENVELOPE_MAX
# Effects of one attempt between its stream and the log; beyond it the stream is not read on.
EFFECTS_IN_FLIGHT_MAX = 1_024
# Bytes of all attempts between their streams and the log (PERDURE_INVOKER__MEMORY_LIMIT); beyond it none is read on.
EFFECT_BYTES_IN_FLIGHT_MAX = 1536 * MIB
# What one effect counts for beyond its frame, so that empty ones are bounded in number too.
EFFECT_OVERHEAD_BYTES = 64
# What one effect costs in a record beyond its frame, roughly; the room of a record is counted with it.
EFFECT_RECORD_OVERHEAD_BYTES = 32
# An error's message and stack trace are kept, each cut to so many characters.
FAILURE_TEXT_MAX = 16 * KIB
# Frames of one stream handled in one turn of the loop: a flood must not hold up the others.
FRAMES_AT_ONCE_MAX = 32
# Of the streams that bring something in one turn of the loop, so many are served at once; the others wait their turn.
STREAMS_PER_TURN_MAX = 64
# Of streams with more frames than FRAMES_AT_ONCE_MAX, so many such shares are handled at a time, all streams together,
# with pauses in which everyone else is served.
FLOOD_SHARES_AT_ONCE_MAX = 4
FLOOD_PAUSE_MS = 2
# Effects in one proposal, so that applying it takes about a millisecond.
EFFECTS_PER_PROPOSAL_MAX = 128
# What nobody waits for is held back at most this long, and this much of it.
EFFECTS_HELD_MS = 5
EFFECTS_HELD_BYTES_MAX = 64 * KIB
# Bytes queued for a peer that does not take them; beyond it the attempt fails.
UNSENT_BYTES_MAX = 128 * MIB
# After a terminal message the response is drained this long before the stream is reset.
DRAIN_MS = 5_000
# Where nothing else is configured: a silent attempt is asked to suspend after the first, cut off after the second more.
INACTIVITY_TIMEOUT_MS = 60_000
ABORT_TIMEOUT_MS = 600_000
# What a suspension waits for is written in at most so many bytes, some 50 000 leaves: it becomes objects one by one.
# Beyond it the attempt fails (RT0012).
FUTURE_BYTES_MAX = 256 * KIB
# A future tree deeper than this pauses its invocation (RT0025). The protobuf library reads 100 nested messages.
FUTURE_DEPTH_MAX = 90
# Eager state is sent up to this size, beyond it the map is partial (PERDURE_INVOKER__EAGER_STATE_SIZE_LIMIT).
EAGER_STATE_BYTES_MAX = 32 * MIB
# Where nothing else is configured: the first pause before a retry, how it grows, the longest, and how many attempts in
# all, after which the invocation pauses until an operator resumes it.
RETRY_DELAY_MS_FIRST = 500
RETRY_FACTOR = 2.0
RETRY_DELAY_MS_MAX = 60_000
RETRY_ATTEMPTS_MAX = 70
# Each retry delay is lengthened by up to this share, so that retries do not come in waves.
RETRY_JITTER = 0.3

# How often silent attempts are looked for; more often, down to the minimum, where shorter time-outs are configured.
ATTEMPT_SWEEP_MS = 250
ATTEMPT_SWEEP_MS_MIN = 50

# -- streams to deployments --------------------------------------------------
# How long a connection may take to open, unless configured; then its streams are refused, never sent.
CONNECT_TIMEOUT_S = 10.0
# Received bytes of one stream that its attempt has not dealt with; beyond it the peer may not send, or is not read.
STREAM_WINDOW_BYTES = 2 * MIB
# All streams of a connection together; 16 attempts that stop reading stall the rest, not our memory.
HTTP2_CONNECTION_WINDOW_BYTES = 16 * STREAM_WINDOW_BYTES
# A larger frame is an error of the peer and ends the connection. RFC 9113 lets no receiver allow less.
HTTP2_FRAME_BYTES_MAX = 16 * KIB
# A response's headers, compressed and not; more end the connection.
HTTP2_HEADER_BYTES_MAX = 64 * KIB
# What our side of the compression may remember, whatever the peer would allow; older headers are sent in full.
HTTP2_HEADER_TABLE_BYTES_MAX = 4 * KIB
# Open streams of one connection, or what the peer allows if that is less; the next one goes to another connection.
HTTP2_STREAMS_PER_CONNECTION_MAX = 128
# hypercorn kills every stream in flight on the 1001st request of a connection (it says GOAWAY and then refuses
# to speak), so we retire a connection ourselves. Far below the 2^30 ids after which others misbehave.
HTTP2_REQUESTS_PER_CONNECTION_MAX = 1000
# 16 connections of 128 streams carry twice the attempts of a node; beyond it a stream is refused, never sent.
HTTP2_CONNECTIONS_PER_ORIGIN_MAX = 16
# A successor is opened when a connection has this many requests, or a quarter of its streams, left.
HTTP2_SUCCESSOR_AHEAD_REQUESTS = 100
HTTP2_SUCCESSOR_AHEAD_STREAMS = 32
# A GOAWAY after at least this many requests is taken for the peer's habit, below it for an accident.
HTTP2_GOAWAY_HABIT_REQUESTS_MIN = 100
# A stream that is turned away before its first byte left is tried on this many connections.
HTTP2_PLACEMENTS_MAX = 3
# A connection that brings nothing for the first is pinged, and closed if it brings nothing for the second more.
HTTP2_PING_INTERVAL_S = 40.0
HTTP2_PING_TIMEOUT_S = 20.0
# A connection without streams is closed after this.
HTTP2_IDLE_TIMEOUT_S = 60.0
# How exact these three are.
HTTP2_SWEEP_S = 1.0
# What is to be sent leaves at the end of the turn, or at once when so many streams or bytes of it have gathered.
HTTP2_WRITE_AFTER_STREAMS = 8
HTTP2_WRITE_AFTER_BYTES = 16 * KIB
# One stream's share of a flush, so that one long request does not hold up the others on its connection.
HTTP2_STREAM_QUANTUM_BYTES = 64 * KIB
# Above this many unwritten bytes the kernel does not take more: request bytes wait in their streams.
HTTP2_WRITE_BUFFER_BYTES = 256 * KIB
# Frames that cannot wait (acknowledgements, resets) still grow the buffer; beyond this the peer does not read, and the
# connection ends.
HTTP2_WRITE_BUFFER_BYTES_MAX = 4 * MIB
# Streams that wait for one origin's first handshake to tell the protocol; beyond it a stream is refused, never sent.
UNDECIDED_STREAMS_MAX = 1024
# How long it is remembered that an https origin chose HTTP/1.1; its next deployment may know more.
HTTP1_REMEMBERED_S = 60.0
# As many as attempts of a node; the next ones wait for a connection inside aiohttp.
HTTP1_CONNECTIONS_MAX = 1024
# Below the 5 s after which Node and hypercorn close idle connections: a request must not race with that.
HTTP1_KEEP_ALIVE_S = 4.0
# Parsed addresses, forgotten all at once when full.
TARGETS_REMEMBERED = 4096

# -- background work of a leader ---------------------------------------------
# One record fires so many timers, or drops so many expired rows; the others follow with the next.
TIMERS_PER_COMMAND_MAX = 256
EXPIRIES_PER_COMMAND_MAX = 512
# Rows that one look at the table takes; the next look goes on from there.
ACTIVE_SCAN_PAGE = 256
OUTBOX_SCAN_PAGE = 256
# Messages to one partition that are appended but not acknowledged; the others wait in the table.
OUTBOX_IN_FLIGHT_MAX = 1_024
# Acknowledged messages are truncated together, this long after the first.
OUTBOX_TRUNCATE_AFTER_S = 0.05
# After a refused or unknown append the queue starts again from its first row.
OUTBOX_SHIP_AGAIN_S = 0.2
# A proposal that the log refused (disk full), and a claim whose append failed, are made again after this.
PROPOSE_AGAIN_S = 0.2
ANNOUNCE_AGAIN_S = 0.2
# How often a leader looks for what has expired, unless configured.
CLEANUP_MS = 1_000
# The longest sleep until a timer's deadline: clocks may step meanwhile.
TIMER_LOOK_AGAIN_MS = 60_000
# How often a node looks whether its partitions are to be flushed.
HOST_SWEEP_S = 1.0
# A wall clock that ran ahead of the log by more than this stops expiries and alarms (correctness 22).
SKEW_MS_MAX = 5 * 60_000

# A proposal of effects and a part's header fit into a record, and a record into a frame and a segment of the log.
assert EFFECTS_HELD_BYTES_MAX < PART_PAYLOAD_MAX < RECORD_MAX
assert RECORD_MAX < LOG_FRAME_BYTES_MAX < LOG_SEGMENT_BYTES
# One command carries a message, and its echo as an answer.
assert 2 * MESSAGE_SIZE_MAX <= PAYLOAD_MAX
# What clients may have in flight cannot make the log refuse what the leaders have to record.
assert INGRESS_BYTES_IN_FLIGHT_MAX + PAYLOAD_MAX < LOG_QUEUE_BYTES_MAX
assert STORE_MEMTABLE_BYTES <= STORE_WRITE_BUFFERS_BYTES
# On a disk that fills, the log stops first, and the stores still flush.
assert STORE_FLUSH_ROOM_BYTES < LOG_DISK_FREE_BYTES_MIN
# A doubled request meets its proof, and a part its successor, as long as either may be applied.
assert PARTS_KEEP_MS > REPLY_KEEP_MS > REQUEST_HORIZON_MS
assert REASK_AFTER_MS < REASK_AFTER_MS_MAX < REQUEST_HORIZON_MS
# One record's timers and expiries are within what one apply may touch.
assert max(TIMERS_PER_COMMAND_MAX, EXPIRIES_PER_COMMAND_MAX, ANSWERS_PER_RECORD_MAX) < ROWS_MAX
# One dead deployment starves nobody, and the connections to one carry all it may hold, a retiring one beside each.
assert ATTEMPTS_PER_DEPLOYMENT_MAX < ATTEMPTS_MAX <= ATTEMPTS_WAITING_MAX
assert 2 * ATTEMPTS_MAX <= HTTP2_CONNECTIONS_PER_ORIGIN_MAX * HTTP2_STREAMS_PER_CONNECTION_MAX
assert min(HTTP1_CONNECTIONS_MAX, UNDECIDED_STREAMS_MAX) >= ATTEMPTS_MAX
# State that is sent along is queued at once, beside the input of the call.
assert EAGER_STATE_BYTES_MAX + MESSAGE_SIZE_MAX < UNSENT_BYTES_MAX
assert RETRY_DELAY_MS_FIRST <= RETRY_DELAY_MS_MAX and ATTEMPT_SWEEP_MS_MIN <= ATTEMPT_SWEEP_MS < INACTIVITY_TIMEOUT_MS
assert HTTP2_SUCCESSOR_AHEAD_STREAMS < HTTP2_STREAMS_PER_CONNECTION_MAX
assert HTTP2_SUCCESSOR_AHEAD_REQUESTS < HTTP2_REQUESTS_PER_CONNECTION_MAX
assert HTTP2_FRAME_BYTES_MAX <= HTTP2_STREAM_QUANTUM_BYTES <= HTTP2_WRITE_BUFFER_BYTES < HTTP2_WRITE_BUFFER_BYTES_MAX
