// A stock STREAM server (ilp-protocol-stream over ilp-plugin-btp), as others run it:
// connects as a child, learns its address by ILDCP and accepts all money.
//
// usage: node stock_server.js BTP_URL
//   BTP_URL  btp+ws://:TOKEN@HOST:PORT
// prints one JSON object a line: where to pay, then, when standard input ends, what arrived.
'use strict'

const IlpPacket = require('ilp-packet')
const Plugin = require('ilp-plugin-btp')
const { createServer } = require('ilp-protocol-stream')

const ACCEPT_MAX = '1000000000000000'

function print (object) {
  console.log(JSON.stringify(object))
}

async function main () {
  const plugin = new Plugin({ server: process.argv[2] })

  // What was fulfilled, seen from the plugin; and what the streams say they got.
  const packets = { fulfilled: 0, amount: 0n }
  const registerDataHandler = plugin.registerDataHandler.bind(plugin)
  plugin.registerDataHandler = (handle) => registerDataHandler(async (data) => {
    const reply = await handle(data)
    if (reply[0] === IlpPacket.Type.TYPE_ILP_FULFILL) {
      packets.fulfilled++
      packets.amount += BigInt(IlpPacket.deserializeIlpPrepare(data).amount)
    }
    return reply
  })

  const server = await createServer({ plugin })
  let received = 0n
  server.on('connection', (connection) => {
    connection.on('stream', (stream) => {
      stream.setReceiveMax(ACCEPT_MAX)
      stream.on('money', (amount) => { received += BigInt(amount) })
    })
  })

  const { destinationAccount, sharedSecret } = server.generateAddressAndSecret()
  print({ address: destinationAccount, secret: sharedSecret.toString('base64') })

  for await (const _ of process.stdin) { /* until it ends */ }
  print({
    received: received.toString(),
    packets: { fulfilled: packets.fulfilled, amount: packets.amount.toString() }
  })
}

main().then(() => process.exit(0), (error) => {
  console.error(error)
  process.exit(1)
})
