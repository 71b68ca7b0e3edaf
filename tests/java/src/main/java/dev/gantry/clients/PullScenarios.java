package dev.gantry.clients;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** What pull consumers are promised, the classic one and the lite one. */
final class PullScenarios {
    private PullScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("pull_walks_a_queue_from_first_to_last", PullScenarios::walk);
        all.put("pull_outside_the_queue_says_where_it_begins", PullScenarios::outside);
        all.put("lite_pull_consumer_gets_every_message_once", PullScenarios::lite);
        all.put("lite_pull_consumer_reads_again_after_a_seek", PullScenarios::seek);
    }

    /** Bodies of a queue from its first message to its last, as a classic pull consumer reads them. */
    static List<String> readQueue(World world, MessageQueue queue, String expression) throws Exception {
        List<String> bodies = new ArrayList<>();
        for (MessageExt message : messages(world.pullConsumer(world.name("walkers")), queue, expression)) {
            bodies.add(Inbox.text(message));
        }
        return bodies;
    }

    @SuppressWarnings("deprecation")
    static List<MessageExt> messages(DefaultMQPullConsumer consumer, MessageQueue queue, String expression) throws Exception {
        List<MessageExt> messages = new ArrayList<>();
        long end = consumer.maxOffset(queue);
        long next = consumer.minOffset(queue);
        while (next < end) {
            PullResult result = consumer.pull(queue, expression, next, 32);
            if (result.getPullStatus() == PullStatus.FOUND) {
                messages.addAll(result.getMsgFoundList());
            }
            Check.that(result.getNextBeginOffset() > next, "pull at " + next + " does not move on: " + result);
            next = result.getNextBeginOffset();
        }
        return messages;
    }

    private static void walk(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        List<String> sent = World.sendRoundQueues(producer, topic, "m", 100);
        MessageQueue queue = World.queues(producer, topic).get(0);
        List<MessageExt> messages = messages(world.pullConsumer(world.name("walkers")), queue, "*");
        for (int i = 0; i < messages.size(); i++) {
            Check.same((long) i, messages.get(i).getQueueOffset(), "queue offset of message " + i);
        }
        Check.same(sent, readQueue(world, queue, "TagA"), "bodies in the queue");
    }

    @SuppressWarnings("deprecation")
    private static void outside(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        World.sendRoundQueues(producer, topic, "m", 5);
        MessageQueue queue = World.queues(producer, topic).get(0);
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("walkers"));
        PullResult beyond = consumer.pull(queue, "*", 500, 32);
        Check.same(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus(), "status beyond the end");
        Check.same(5L, beyond.getNextBeginOffset(), "offset to go on from");
        Check.same(PullStatus.NO_NEW_MSG, consumer.pull(queue, "*", 5, 32).getPullStatus(), "status at the end");
    }

    private static DefaultLitePullConsumer liteConsumer(World world, String topic) throws Exception {
        DefaultLitePullConsumer consumer = world.litePullConsumer(world.name("lite"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.start();
        return consumer;
    }

    private static void pollInto(Inbox inbox, DefaultLitePullConsumer consumer, int count) throws Exception {
        Check.until(count + " messages are polled", () -> {
            consumer.poll(100).forEach(inbox::add);
            return inbox.size() >= count;
        }, inbox::bodies);
    }

    private static void lite(World world) throws Exception {
        String topic = world.topic(4);
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "m", 9);
        DefaultLitePullConsumer consumer = liteConsumer(world, topic);
        Inbox inbox = new Inbox();
        pollInto(inbox, consumer, sent.size());
        inbox.waitForExactly(sent);
        consumer.commitSync();
        for (MessageQueue queue : consumer.fetchMessageQueues(topic)) {
            long expected = queue.getQueueId() == 0 ? 3 : 2;
            Check.same(expected, consumer.committed(queue), "committed offset of queue " + queue.getQueueId());
        }
    }

    private static void seek(World world) throws Exception {
        String topic = world.topic(1);
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "m", 5);
        DefaultLitePullConsumer consumer = liteConsumer(world, topic);
        pollInto(new Inbox(), consumer, sent.size());
        for (MessageQueue queue : consumer.assignment()) {
            consumer.seek(queue, 2);
        }
        Inbox again = new Inbox();
        pollInto(again, consumer, 3);
        Check.same(sent.subList(2, 5), again.bodies(), "bodies after the seek");
    }
}
