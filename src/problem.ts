import { STATUS_CODES } from 'node:http'

/** One thing that is wrong with an input: where (a JSON Pointer, or the name of a parameter) and what. */
export interface InputError {
  readonly path: string
  readonly message: string
}

/**
 * What can go wrong, once for each:
 * - `malformed`: the request can't be read as what it says it is;
 * - `forbidden`: known, and not for this client;
 * - `not found`: no such thing;
 * - `not acceptable`: no representation of what is asked for is accepted;
 * - `precondition failed`: it is not in the state that the request expects;
 * - `too large`: past a limit of size;
 * - `unsupported`: a media type that can't be taken here;
 * - `refused`: well-formed, and not allowed;
 * - `upgrade required`: not over this protocol; the header Upgrade says which;
 * - `unavailable`: not now; comes with when to try again.
 */
const STATUS = {
  malformed: 400,
  forbidden: 403,
  'not found': 404,
  'not acceptable': 406,
  'precondition failed': 412,
  'too large': 413,
  unsupported: 415,
  refused: 422,
  'upgrade required': 426,
  unavailable: 503
} as const

export type ProblemKind = keyof typeof STATUS

/** Something wrong that a client is told (RFC 9457). Names what was wrong; never holds a stack. */
export class Problem extends Error {
  override name = 'Problem'
  readonly statusCode: number
  readonly errors: readonly InputError[]
  /** Seconds after which to try again. */
  readonly retryAfter: number | undefined

  constructor(kind: ProblemKind, detail: string, errors: readonly InputError[] = [], retryAfter?: number) {
    super(detail)
    this.statusCode = STATUS[kind]
    this.errors = errors
    this.retryAfter = retryAfter
  }
}

/** The body of an `application/problem+json` answer. `about:blank`: the status says what kind it is (section 4.2.1). */
export interface ProblemDetails {
  type: string
  title: string
  status: number
  detail: string
  errors?: readonly InputError[]
}

export function problemDetails(
  status: number,
  detail: string,
  errors: readonly InputError[] = []
): ProblemDetails {
  const title = STATUS_CODES[status] ?? 'Error'
  return { type: 'about:blank', title, status, detail, ...(errors.length > 0 && { errors }) }
}
