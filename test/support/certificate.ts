import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** A certificate made for this test. */
export interface Certificate {
  readonly TLS_CERT: string
  readonly TLS_KEY: string
  readonly ca: Buffer
}

/** `name`: whom it is for. */
export function makeCertificate(folder: string, name = 'IP:127.0.0.1'): Certificate {
  const TLS_CERT = join(folder, 'cert.pem')
  const TLS_KEY = join(folder, 'key.pem')
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const subject = ['-subj', '/CN=ringside-test', '-addext', `subjectAltName=${name}`, '-days', '2']
  execFileSync('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', TLS_KEY, '-out', TLS_CERT], {
    stdio: 'pipe'
  })
  return { TLS_CERT, TLS_KEY, ca: readFileSync(TLS_CERT) }
}
