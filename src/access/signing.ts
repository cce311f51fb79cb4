import { createPrivateKey, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import { algorithmsFor, readFile, readKey } from './pem.ts'

/** What signs a token: a secret (HS256), or a file with a private key in PEM, by whose kind the algorithm is chosen. */
export type Signer =
  { readonly secret: string } | { readonly file: string; readonly kid?: string | undefined }

/** What a new token shall say. */
export interface NewToken {
  readonly sub?: string | undefined
  readonly subscribe: readonly string[]
  readonly publish: readonly string[]
  /** Whether its user operates the server. */
  readonly admin?: boolean | undefined
  /** Seconds until it runs out. */
  readonly expires: number
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
}

/** Signs a token. Throws a `ConfigError` for a key that can't. */
export async function signToken(
  { sub, subscribe, publish, admin, expires, audience, issuer }: NewToken,
  signer: Signer
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  const token = new SignJWT({
    ...(sub !== undefined && { sub }),
    ...(audience !== undefined && { aud: audience }),
    ...(issuer !== undefined && { iss: issuer }),
    ...{ iat: now, exp: now + Math.ceil(expires), ringside: { subscribe, publish, ...(admin && { admin }) } }
  })
  const { header, key } = signingKey(signer)
  return token.setProtectedHeader({ ...header, typ: 'JWT' }).sign(key)
}

function signingKey(signer: Signer): { header: { alg: string; kid?: string }; key: Uint8Array | KeyObject } {
  if ('secret' in signer) return { header: { alg: 'HS256' }, key: new TextEncoder().encode(signer.secret) }
  const { file, kid } = signer
  const pem = readFile(file, file)
  const key = readKey(file, () => createPrivateKey(pem))
  const [alg] = algorithmsFor(file, key) as [string]
  return { header: { alg, ...(kid !== undefined && { kid }) }, key }
}
