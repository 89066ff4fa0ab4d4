// A stock STREAM client (ilp-protocol-stream over ilp-plugin-btp), as others run it:
// connects as a child, learns its address by ILDCP, resolves the payee by SPSP and pays.
//
// usage: node stock_client.js BTP_URL SPSP_URL AMOUNT PACKET_AMOUNT_MAX
//   BTP_URL  btp+ws://:TOKEN@HOST:PORT
// prints one JSON object; amounts are decimal strings.
'use strict'

const IlpPacket = require('ilp-packet')
const Plugin = require('ilp-plugin-btp')
const { createConnection } = require('ilp-protocol-stream')

// Counts packets where they leave and arrive: below STREAM, above BTP.
function count (plugin) {
  const packets = { fulfilled: 0, rejects: {} }
  const sendData = plugin.sendData.bind(plugin)
  plugin.sendData = async (data) => {
    const reply = await sendData(data)
    const prepare = IlpPacket.deserializeIlpPrepare(data)
    if (prepare.destination === 'peer.config') {
      return reply
    }
    if (reply[0] === IlpPacket.Type.TYPE_ILP_FULFILL) {
      packets.fulfilled++
    } else {
      const { code } = IlpPacket.deserializeIlpReject(reply)
      packets.rejects[code] = (packets.rejects[code] || 0) + 1
    }
    return reply
  }
  return packets
}

async function resolve (url) {
  const response = await fetch(url, { headers: { accept: 'application/spsp4+json' } })
  if (!response.ok) {
    throw new Error(`${url} answered ${response.status}`)
  }
  const payee = await response.json()
  return {
    destinationAccount: payee.destination_account,
    sharedSecret: Buffer.from(payee.shared_secret, 'base64')
  }
}

async function main () {
  const [server, spspUrl, amount, maximumPacketAmount] = process.argv.slice(2)
  const plugin = new Plugin({ server })
  const packets = count(plugin)
  const payee = await resolve(spspUrl)

  const connection = await createConnection({ plugin, ...payee, slippage: 0.05, maximumPacketAmount })
  const stream = connection.createStream()
  await stream.sendTotal(amount, { timeout: 120000 })
  await connection.end()

  console.log(JSON.stringify({
    address: connection.sourceAccount,
    destination: payee.destinationAccount,
    sent: connection.totalSent,
    delivered: connection.totalDelivered,
    packets
  }))
}

main().then(() => process.exit(0), (error) => {
  console.error(error)
  process.exit(1)
})
