/**
 * Where a session's bytes go. The transport's side of a session: all that the hub knows of a socket.
 * An implementation MUST NOT throw, MUST take whole what it is given, and MUST call `Session.drained` once `pending`
 * has fallen to zero.
 */
export interface Sink {
  /** Bytes that were written and that the socket has not taken yet. */
  readonly pending: number
  write(bytes: Buffer): void
  /** No more will be written. */
  end(): void
}
