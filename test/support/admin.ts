import { ask, type Address, type Ask } from './app.ts'
import { bearer, tokenOf } from './tokens.ts'

/** What the operator's API answers, as far as tests look at it. */
export type Told = Record<string, unknown> & {
  readonly instances: { id: string; pid: number; draining: boolean; connections: Record<string, number> }[]
  readonly connections: ConnectionTold[]
  readonly topics: Record<string, unknown>[]
  readonly gaps: Record<string, unknown>[]
  readonly refusals: Record<string, unknown>[]
  readonly inForce: { instances: string[]; settings: Record<string, unknown>; rules: unknown[] }[]
  readonly unanswered: { id: string }[]
}

interface ConnectionTold extends Record<string, unknown> {
  readonly id: string
  readonly instance: string
  readonly user: string | null
}

/** The headers of who operates the server. */
export async function operator(sub = 'ops') {
  return bearer(await tokenOf({ sub, ringside: { admin: true } }))
}

/** Asks the operator's API; the answer is JSON. */
export async function told(
  server: Pick<Address, 'port'>,
  path: string,
  request: Ask = {}
): Promise<{ status: number; body: Told }> {
  const { status, json } = await ask(server, `/admin/api${path}`, {
    ...request,
    headers: { ...(await operator()), ...request.headers }
  })
  return { status, body: json() as Told }
}
