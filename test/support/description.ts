import { Errors } from 'typebox/schema'
import { ask, type Address } from './app.ts'

/** An OpenAPI document, as far as it is asked here. */
export interface Description {
  readonly openapi: string
  readonly info: {
    readonly title: string
    readonly version: string
    readonly description: string
    readonly license: { name: string }
  }
  readonly servers: readonly { readonly url: string }[]
  readonly tags: readonly { readonly name: string; readonly description: string }[]
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, object>>
    readonly securitySchemes: Readonly<Record<string, object>>
  }
  readonly security: readonly object[]
}

export interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly tags: readonly string[]
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> }
  readonly responses: Readonly<Record<string, Response>>
}

export interface Parameter extends Media {
  readonly name: string
  readonly in: string
  readonly required: boolean
}

export interface Response {
  readonly description: string
  readonly headers?: Readonly<Record<string, object>>
  readonly content?: Readonly<Record<string, Media>>
}

export interface Media {
  readonly schema: object
  readonly example?: unknown
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>
}

/** What a server says of itself. */
export async function describe(server: Pick<Address, 'port'>): Promise<Description> {
  const answer = await ask(server, '/openapi.json')
  return answer.json() as unknown as Description
}

export function operationsOf({ paths }: Description) {
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ path, method, ...operation }))
  )
}

export function examplesOf(media: Media): unknown[] {
  const shown = Object.values(media.examples ?? {}).map(({ value }) => value)
  return 'example' in media ? [media.example, ...shown] : shown
}

/** What of a value is not as a schema of the description says. */
export function wrongIn({ components }: Description, schema: object, value: unknown): readonly object[] {
  const [, errors] = Errors({ ...schema, components }, value)
  return errors
}
