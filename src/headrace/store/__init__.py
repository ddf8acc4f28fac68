"""What a node keeps on disk.

    port      what the rest of the node may ask of the store: protocols, values and failures
    file_port  the same for files
    sqlite    the durable queue, in DATA_DIR/requests.db
    blobs     files by content hash, in DATA_DIR/files
    threads   wait for the disk, so that the loop need not
    keyfile   the keys, in DATA_DIR/keys.json
    tls       the local CA and the server's certificate, in DATA_DIR/tls
    webhook_key  the key that signs webhooks, in DATA_DIR/webhook-key.pem
    token_file   what makes and ends reading tokens, in DATA_DIR/reading-tokens.json
    files     files that several processes share

Private. The gateway and the supervisor know `port` and `file_port`; only `headrace.node` knows which store stands
behind them.
"""
