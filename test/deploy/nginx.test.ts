import { testProxy } from './outages.ts'
import { KINDS } from './proxies.ts'

testProxy('nginx', KINDS.nginx)
