import { STATUS_CODES } from 'node:http'

/** One thing that is wrong with an input: where (a JSON Pointer, or the name of a parameter) and what. */
export interface InputError {
  readonly path: string
  readonly message: string
}

/**
 * What can go wrong, once for each:
 * - `malformed`: the request can't be read as what it says it is;
 * - `unauthorized`: nobody known asks for what is not for everybody;
 * - `forbidden`: known, and not for this client;
 * - `not found`: no such thing;
 * - `method not allowed`: not to be done with this; the header Allow says what is;
 * - `not acceptable`: no representation of what is asked for is accepted;
 * - `conflict`: not with what there is by now, whoever asks;
 * - `precondition failed`: it is not in the state that the request expects;
 * - `too large`: past a limit of size;
 * - `unsupported`: a media type that can't be taken here;
 * - `misdirected`: for a host that is not answered here;
 * - `refused`: well-formed, and not allowed;
 * - `upgrade required`: not over this protocol; the header Upgrade says which;
 * - `too many`: past a limit that each client has; comes with when to try again;
 * - `unavailable`: not now; comes with when to try again.
 */
const STATUS = {
  malformed: 400,
  unauthorized: 401,
  forbidden: 403,
  'not found': 404,
  'method not allowed': 405,
  'not acceptable': 406,
  conflict: 409,
  'precondition failed': 412,
  'too large': 413,
  unsupported: 415,
  misdirected: 421,
  refused: 422,
  'upgrade required': 426,
  'too many': 429,
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

/** A wrong part of an input, and why: `path: message`. The path of the whole input is empty. */
export function wrong(kind: ProblemKind, path: string, message: string): Problem {
  return new Problem(kind, path === '' ? message : `${path}: ${message}`, [{ path, message }])
}

/**
 * Why somebody is not known, or not allowed. Each is a label of a metric:
 * - `missing`: no token, and it is not for everybody;
 * - `too_large`, `malformed`: no token can be read;
 * - `algorithm`: one that none of the keys is for;
 * - `key`, `signature`: no key of ours has signed it;
 * - `unavailable`: the keys can't be had now;
 * - `expired`, `early`, `audience`, `issuer`: signed, and not for now or not for here;
 * - `claims`: signed, and what it claims can't be understood;
 * - `forbidden`: known, and not for this client;
 * - `origin`: a browser brings the cookie, for a page that is not listed.
 */
export type DenialReason =
  | 'missing'
  | 'too_large'
  | 'malformed'
  | 'algorithm'
  | 'key'
  | 'signature'
  | 'unavailable'
  | 'expired'
  | 'early'
  | 'audience'
  | 'issuer'
  | 'claims'
  | 'forbidden'
  | 'origin'

/** The reasons that have another status than 401. */
const DENIALS: { readonly [Reason in DenialReason]?: ProblemKind } = {
  unavailable: 'unavailable',
  forbidden: 'forbidden',
  origin: 'forbidden'
}

/** Somebody who is not known, or not allowed. What it says never holds a token. */
export class Denied extends Problem {
  override name = 'Denied'
  readonly reason: DenialReason

  constructor(reason: DenialReason, detail: string, errors: readonly InputError[] = []) {
    super(DENIALS[reason] ?? 'unauthorized', detail, errors, reason === 'unavailable' ? 1 : undefined)
    this.reason = reason
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
