"""● core · The Restate service protocol, V5 to V7, as server and SDK speak it; nothing of Perdure's own in it.

framing   the 8-byte header, type codes, the incremental Decoder
messages  type code ↔ message class, and the frames that the server sends, ready as bytes
manifest  what a deployment says about itself; version negotiation
ids       text and byte forms of every identifier
"""
