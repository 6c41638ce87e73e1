"""The limits of the server, each with its reason; whoever exceeds one gets a 4xx that names it."""

SLOTS = 16  # replies that are generated at once
QUEUE_LIMIT = 128  # that wait
RETRY_AFTER_S = 5  # what a 503 advises: another server may be there by then

MOST_HEADER_BYTES = 32 << 10  # one request's line and headers
HEADER_TIME_S = 10.0  # from a connection (or the answer before) to the end of the headers
KEEP_ALIVE_S = 30  # an idle connection is closed then
MOST_BODY_BYTES = 8 << 20  # far above any context
BODY_TIME_S = 60.0
LINGER_BYTES = 64 << 20  # of a body that is too large: read and thrown away, so that
LINGER_TIME_S = 2.0  # its sender hears the answer; so is one of a request that is refused before
SEND_TIME_S = 60.0  # a reader that takes nothing for so long is cut off
MOST_DEPTH = 64  # of free JSON: schemas, tools, template variables

MOST_MESSAGES = 4096
MOST_REPLIES = 16  # n, times the prompts of a completion
MOST_TOP_LOGPROBS = 20
MOST_STOPS = 16
MOST_STOP_CHARS = 1024
MOST_BIASES = 1024
MOST_TOOLS = 128
MOST_GRAMMAR_CHARS = 64 << 10  # compiles within seconds, whatever it says
GRAMMAR_TIME_S = 10.0
MOST_TOKENIZE_CHARS = 1 << 20
MOST_EMBEDDINGS = 256
MOST_CONVERSATIONS = 500  # in one list; search finds the rest
