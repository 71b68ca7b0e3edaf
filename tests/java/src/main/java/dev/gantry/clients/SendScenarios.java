package dev.gantry.clients;

import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageId;
import org.apache.rocketmq.common.message.MessageQueue;

/** What a producer is promised: answers that name where the message lies, whatever way it was sent. */
final class SendScenarios {
    private SendScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("sync_send_gets_consecutive_queue_offsets", SendScenarios::consecutiveOffsets);
        all.put("offset_id_of_a_send_names_the_broker", SendScenarios::offsetIdNamesBroker);
        all.put("async_send_calls_back_with_the_place_of_each_message", SendScenarios::async);
        all.put("one_way_send_arrives", SendScenarios::oneWay);
        all.put("batch_lies_in_one_queue_in_order", SendScenarios::batch);
        all.put("unknown_topic_is_created_by_the_first_send", SendScenarios::autoCreated);
        all.put("compressed_body_arrives_unchanged", SendScenarios::compressed);
    }

    private static void consecutiveOffsets(World world) throws Exception {
        String topic = world.topic(4);
        DefaultMQProducer producer = world.producer();
        Map<Integer, Long> next = new HashMap<>();
        for (int i = 0; i < 40; i++) {
            SendResult result = World.send(producer, World.message(topic, "TagA", "m-" + i));
            int queue = result.getMessageQueue().getQueueId();
            Check.same(next.getOrDefault(queue, 0L), result.getQueueOffset(), "offset in queue " + queue);
            next.put(queue, result.getQueueOffset() + 1);
        }
        Check.same(4, next.size(), "queues used");
    }

    private static void offsetIdNamesBroker(World world) throws Exception {
        SendResult result = World.send(world.producer(), World.message(world.topic(1), "TagA", "m"));
        MessageId id = MessageDecoder.decodeMessageId(result.getOffsetMsgId());
        InetSocketAddress address = (InetSocketAddress) id.getAddress();
        String named = address.getAddress().getHostAddress() + ":" + address.getPort();
        Check.same(world.server.broker, named, "address in the offset id");
    }

    private static void async(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        List<CompletableFuture<SendResult>> answers = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            answers.add(sendAsync(producer, World.message(topic, "TagA", "m-" + i)));
        }
        Set<Long> offsets = new HashSet<>();
        for (CompletableFuture<SendResult> answer : answers) {
            offsets.add(World.stored(answer.get(30, TimeUnit.SECONDS)).getQueueOffset());
        }
        Check.same(20, offsets.size(), "different queue offsets");
        Check.that(offsets.contains(0L) && offsets.contains(19L), "queue offsets have a gap: " + offsets);
    }

    private static CompletableFuture<SendResult> sendAsync(DefaultMQProducer producer, Message message) throws Exception {
        CompletableFuture<SendResult> answer = new CompletableFuture<>();
        producer.send(message, new SendCallback() {
            @Override
            public void onSuccess(SendResult result) {
                answer.complete(result);
            }

            @Override
            public void onException(Throwable e) {
                answer.completeExceptionally(e);
            }
        });
        return answer;
    }

    private static void oneWay(World world) throws Exception {
        String topic = world.topic(1);
        world.producer().sendOneway(World.message(topic, "TagA", "one way"));
        Inbox inbox = new Inbox();
        world.consumer(world.name("readers"), topic, inbox);
        inbox.waitFor(1);
        Check.same("one way", inbox.bodies().get(0), "body");
    }

    private static void batch(World world) throws Exception {
        String topic = world.topic(4);
        List<Message> messages = new ArrayList<>();
        List<String> bodies = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            bodies.add("m-" + i);
            messages.add(World.message(topic, "TagA", "m-" + i));
        }
        SendResult result = World.stored(world.producer().send(messages));
        Check.same(10, result.getMsgId().split(",").length, "unique ids of the batch");
        Check.same(10, result.getOffsetMsgId().split(",").length, "offset ids of the batch");
        List<String> read = PullScenarios.readQueue(world, result.getMessageQueue(), "*");
        Check.same(bodies, read, "bodies in the queue");
    }

    private static void autoCreated(World world) throws Exception {
        String topic = world.name("created-by-send");
        DefaultMQProducer producer = world.producer();
        World.send(producer, World.message(topic, "TagA", "first"));
        // The answer does not wait until the name servers know the topic.
        Check.until("the new topic has four queues", () -> routed(producer, topic) == 4, () -> routed(producer, topic));
    }

    /** Queues in the topic's route, 0 when there is none yet. */
    private static int routed(DefaultMQProducer producer, String topic) throws Exception {
        try {
            return World.queues(producer, topic).size();
        } catch (MQClientException e) {
            return 0;
        }
    }

    private static void compressed(World world) throws Exception {
        String topic = world.topic(1);
        StringBuilder text = new StringBuilder();
        while (text.length() < 100_000) {
            text.append("a line that compresses well ").append(text.length()).append('\n');
        }
        SendResult result = World.send(world.producer(), World.message(topic, "TagA", text.toString()));
        List<String> read = PullScenarios.readQueue(world, result.getMessageQueue(), "*");
        Check.that(read.size() == 1 && read.get(0).contentEquals(text), "body differs after the way");
    }
}
