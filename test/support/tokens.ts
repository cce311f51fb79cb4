import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, SignJWT, type JWK } from 'jose'
import type { Test } from 'tap'

export const SECRET = 'no secret at all: it stands in a test'

/** What tokens of a test are signed with. */
export interface Signing {
  readonly key?: string | KeyObject
  readonly alg?: string
  readonly kid?: string
}

/** A token that is good for an hour, unless its claims say something else; undefined leaves a claim out. */
export function tokenOf(
  claims: Record<string, unknown> = {},
  { key = SECRET, alg = 'HS256', kid }: Signing = {}
) {
  const all = { sub: 'alice', exp: secondsFromNow(3600), ...claims }
  return new SignJWT(Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)))
    .setProtectedHeader({ alg, ...(kid !== undefined && { kid }) })
    .sign(typeof key === 'string' ? new TextEncoder().encode(key) : key)
}

/** A token for these patterns. */
export function tokenFor(
  { subscribe = [], publish = [] }: { subscribe?: readonly string[]; publish?: readonly string[] },
  sub = 'alice'
) {
  return tokenOf({ sub, ringside: { subscribe, publish } })
}

export function bearer(token: string): { authorization: string } {
  return { authorization: `Bearer ${token}` }
}

export function secondsFromNow(seconds: number): number {
  return Math.floor(Date.now() / 1000) + seconds
}

/** A key pair, by the algorithm of its tokens. */
export interface KeyPair {
  readonly alg: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  /** The public key, as an environment variable would have it. */
  readonly pem: string
}

export function makeKeys(alg: 'RS256' | 'ES256' | 'EdDSA'): KeyPair {
  const { privateKey, publicKey } = {
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: () => generateKeyPairSync('ed25519')
  }[alg]()
  return { alg, privateKey, publicKey, pem: publicPem(publicKey) }
}

export function publicPem(key: KeyObject): string {
  return (key.type === 'private' ? createPublicKey(key) : key)
    .export({ type: 'spki', format: 'pem' })
    .toString()
}

/** What a key server does with a request. */
export type Answering = (response: ServerResponse, request: IncomingMessage) => void

/** A server of keys (JWKS) that can rotate them, be slow, be down, or lie. */
export class KeyServer {
  /** How often it was asked. */
  asked = 0
  /** What it answers in place of its keys. */
  answer: Answering | null = null
  readonly #keys: JWK[] = []
  readonly #server = createServer((request, response) => {
    this.asked++
    if (this.answer) return this.answer(response, request)
    response.setHeader('content-type', 'application/jwk-set+json')
    response.end(JSON.stringify({ keys: this.#keys }))
  })
  #port = 0

  /** One on a free port; it goes when the test does. */
  static async start(t: Test): Promise<KeyServer> {
    const server = new KeyServer()
    await server.up()
    t.teardown(() => server.down())
    return server
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/keys`
  }

  /** Adds a key; the answer signs with it. */
  async add(kid: string | undefined, alg: 'RS256' | 'ES256' | 'EdDSA' = 'ES256'): Promise<Signing> {
    const { privateKey, publicKey } = makeKeys(alg)
    this.#keys.push({ ...(await exportJWK(publicKey)), ...(kid !== undefined && { kid }), use: 'sig', alg })
    return { key: privateKey, alg, ...(kid !== undefined && { kid }) }
  }

  /** Takes all keys away. */
  clear(): void {
    this.#keys.length = 0
  }

  async up(): Promise<void> {
    await new Promise<void>(resolve => this.#server.listen(this.#port, '127.0.0.1', resolve))
    this.#port = (this.#server.address() as AddressInfo).port
  }

  async down(): Promise<void> {
    const closed = new Promise(resolve => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }
}
